"""Attached files: kept by digest, within limits, safe from fsck, readable by who may."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from make_evidence import accepted, add_partner, hand_in
from make_release import database_url, leaves, staff, staffed, track
from sqlalchemy import select, update

from stagerelease.catalog import fsck
from stagerelease.catalog.stored import refer
from stagerelease.catalog.tables import Blob, BlobReference
from stagerelease.evidence import service, throttle
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR
from stagerelease.kernel.errors import (
    Conflict,
    Corrupt,
    Invalid,
    NotFound,
    Stale,
    TooLarge,
    TooMany,
    Unauthenticated,
)
from stagerelease.ledger.tables import LogDetail
from stagerelease.releases import service as releases
from stagerelease.releases.tables import Promotion

__all__ = ["database_url", "staff", "staffed", "track"]

DATA = b"<html><script>alert(1)</script>" * 100


def attach(
    staff, blobs, who, evidence_id, *, data=DATA, name="table.csv", sha256=None, limit=10**6
):
    """Attach bytes as the faces do: ask, count, stream, ask again, note."""
    with staff.begin(who, read_only=True) as work:
        service.check_may_attach(work, evidence_id)
    with staff.begin(who, quiet=True) as work:
        service.begin_attaching(work, evidence_id, filename=name, sha256=sha256)
    with service.Receiver(blobs, limit=limit) as receiver:
        for at in range(0, len(data), 1000):
            receiver.write(data[at : at + 1000])
        with staff.begin(who, read_only=True) as work:
            service.check_may_keep(work, evidence_id, filename=name, sha256=receiver.sha256)
        stored = receiver.finish(sha256)
    with staff.begin(who) as work:
        return service.note_attached(work, blobs, evidence_id, filename=name, stored=stored)


def test_a_file_is_kept_by_its_digest_and_read_back(works, staff, track, blobs):
    row = hand_in(staff)
    before = len(leaves(works))
    digest = hashlib.sha256(DATA).hexdigest()
    one = attach(staff, blobs, "mia", row.id, sha256=digest)
    assert (one.sha256, one.size, one.filename) == (digest, len(DATA), "table.csv")
    assert leaves(works, before) == ["evidence.attached"]
    again = attach(staff, blobs, "mia", row.id)
    assert again.id == one.id
    with staff.begin("aud", read_only=True) as work:
        assert service.open_attachment(work, row.id, one.id) == one
        assert service.show_evidence(work, row.id).attachments == (one,)
    with blobs.open(digest) as reader:
        assert reader.read() == DATA


def test_what_is_accepted_is_what_was_read(works, staff, track, blobs):
    """A file that came between reading and accepting is read first."""
    row = hand_in(staff)

    def read():
        with staff.begin("rae", read_only=True) as work:
            return service.show_evidence(work, row.id).seen_sha256

    before = read()
    attach(staff, blobs, "mia", row.id)
    with staff.begin("rae") as work, pytest.raises(Stale) as refused:
        releases.accept_evidence(work, row.id, seen=before)
    assert refused.value.reason == "evidence.changed"
    now = read()
    with staff.begin("rae") as work:
        assert releases.accept_evidence(work, row.id, seen=now).state == "accepted"
    with staff.begin("aud", read_only=True) as work:
        said = work.session.scalars(select(LogDetail.body)).all()
    assert any(now.encode() in body for body in said)
    with works.begin(ANONYMOUS, read_only=True) as work, pytest.raises(Unauthenticated):
        service.show_evidence(work, row.id)


def test_a_file_over_the_limit_leaves_nothing(staff, track, blobs):
    row = hand_in(staff)
    with pytest.raises(TooLarge) as refused:
        attach(staff, blobs, "mia", row.id, limit=len(DATA) - 1)
    assert refused.value.reason == "attachment.size"
    assert attach(staff, blobs, "mia", row.id, limit=len(DATA)).size == len(DATA)
    assert list((blobs.root / "partial").iterdir()) == []


def test_other_bytes_than_announced_leave_nothing(works, staff, track, blobs):
    row = hand_in(staff)
    with pytest.raises(Invalid) as refused:
        attach(staff, blobs, "mia", row.id, sha256="0" * 64)
    assert refused.value.reason == "blob.digest-mismatch"
    with pytest.raises(Invalid) as empty:
        attach(staff, blobs, "mia", row.id, data=b"")
    assert empty.value.reason == "attachment.empty"
    with pytest.raises(Invalid) as digest:
        attach(staff, blobs, "mia", row.id, sha256="nonsense")
    assert digest.value.fields[0].field == "sha256"
    assert list(blobs.list_digests()) == []
    with staff.begin("aud", read_only=True) as work:
        assert service.show_evidence(work, row.id).attachments == ()


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", ".htaccess", "a/b", "..\\..\\x", "a\x00b", "a\r\nb: c", "x" * 151),
        *('a"b', "a:b", "a*b", "<script>", "\u202egpj.exe", "\ud800", "name.", "/etc/passwd"),
    ],
)
def test_a_name_is_one_plain_file_name(staff, track, blobs, name):
    row = hand_in(staff)
    with pytest.raises(Invalid) as refused:
        attach(staff, blobs, "mia", row.id, name=name)
    assert refused.value.fields[0].field == "filename"


def test_two_files_of_one_name_are_refused(staff, track, blobs):
    row = hand_in(staff)
    attach(staff, blobs, "mia", row.id)
    with pytest.raises(Conflict) as refused:
        attach(staff, blobs, "mia", row.id, data=b"other")
    assert refused.value.reason == "attachment.exists"
    assert list(blobs.list_digests()) == [hashlib.sha256(DATA).hexdigest()]  # of the other, nothing
    with staff.begin("mia", quiet=True) as work, pytest.raises(Conflict):  # before its first byte
        service.begin_attaching(work, row.id, filename="table.csv", sha256="0" * 64)
    attach(staff, blobs, "mia", row.id, data=b"other", name="Ωμέγα 漢字.csv")


def test_files_are_counted_before_their_first_byte(works, staff, track, blobs, monkeypatch):
    """What is refused in the end has cost as much as what is kept."""
    add_partner(works, staff, track.id, org="lab", handle="pam")
    monkeypatch.setitem(throttle.LIMITS, throttle.Written.FILE, 3)
    row = hand_in(staff, "pam")
    attach(staff, blobs, "pam", row.id)
    for _ in range(2):
        with pytest.raises(Conflict):
            attach(staff, blobs, "pam", row.id, data=b"other")
    with pytest.raises(TooMany):
        attach(staff, blobs, "pam", row.id, data=b"other", name="new.csv")


def test_what_was_decided_on_keeps_the_files_it_had(staff, track, blobs):
    row = accepted(staff)
    with pytest.raises(Conflict) as refused:
        attach(staff, blobs, "mia", row.id)
    assert refused.value.reason == "attachment.closed"


def test_a_decision_while_bytes_flow_wins(staff, track, blobs):
    row = hand_in(staff)
    with service.Receiver(blobs, limit=10**6) as receiver:
        receiver.write(DATA)
        with staff.begin("rae") as work:
            service.accept(work, row.id)
        stored = receiver.finish(None)
    with staff.begin("mia") as work, pytest.raises(Conflict):
        service.note_attached(work, blobs, row.id, filename="a.csv", stored=stored)


def test_a_number_of_files_is_enough(staff, track, blobs, monkeypatch):
    monkeypatch.setattr("stagerelease.evidence.attaching.MOST_ATTACHMENTS", 2)
    row = hand_in(staff)
    for n in range(2):
        attach(staff, blobs, "mia", row.id, data=b"%d" % n, name=f"{n}.txt")
    with pytest.raises(Conflict) as refused:
        attach(staff, blobs, "mia", row.id, name="third.txt")
    assert refused.value.reason == "attachment.count"


def test_only_authors_attach_and_only_who_sees_the_evidence_reads(works, staff, track, blobs):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    add_partner(works, staff, track.id, org="oregon", handle="olu")
    row = hand_in(staff, "pia")
    one = attach(staff, blobs, "pia", row.id)
    with pytest.raises(NotFound):
        attach(staff, blobs, "olu", row.id, name="other.csv")
    with staff.begin("olu", read_only=True) as work, pytest.raises(NotFound):
        service.open_attachment(work, row.id, one.id)
    with works.begin(ANONYMOUS, read_only=True) as work, pytest.raises(Unauthenticated):
        service.open_attachment(work, row.id, one.id)
    with staff.begin("rae") as work:
        service.accept(work, row.id)
    with staff.begin("olu", read_only=True) as work:  # a holder, and it is accepted now
        got = service.open_attachment(work, row.id, one.id)
        assert got.sha256 == one.sha256
        assert service.show_evidence(work, row.id).attachments[0].added_by == ""
        for odd in ("att_nothing", "\x00", ""):
            with pytest.raises(NotFound):
                service.open_attachment(work, row.id, odd)


def test_the_public_gets_files_only_by_somebodys_approval(works, staff, track, blobs, clock):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    row = hand_in(staff, public=True)
    one = attach(staff, blobs, "mia", row.id)
    with staff.begin("rae") as work:
        service.accept(work, row.id)
    with works.begin(OPERATOR) as work:
        work.session.add(
            Promotion(
                track_id=track.id,
                from_stage="internal",
                to_stage="partner",
                state="applied",
                requester_id=staff.id("mia"),
                rationale="Why.",
                manifest_sha256="0" * 64,
                plan_version_id=track.plan_version_id,
                evidence_ids=[row.id],
                request_hash="0" * 64,
                created_at=clock.now(),
            )
        )
    with works.begin(ANONYMOUS, read_only=True) as work:
        assert service.show_evidence(work, row.id).attachments == ()
        with pytest.raises(NotFound):
            service.open_attachment(work, row.id, one.id)
    for who in ("nia", "pia", "aud"):
        with staff.begin(who, read_only=True) as work:
            files = service.show_evidence(work, row.id).attachments
            assert [file.id for file in files] == ([] if who == "nia" else [one.id])
    with staff.begin("rob") as work:
        service.approve_public(work, row.id)
    with works.begin(ANONYMOUS, read_only=True) as work:
        assert service.open_attachment(work, row.id, one.id).sha256 == one.sha256


def test_an_attachment_of_other_evidence_is_not_reached_through_this_one(staff, track, blobs):
    mine, other = hand_in(staff), hand_in(staff)
    one = attach(staff, blobs, "mia", other.id)
    with staff.begin("aud", read_only=True) as work, pytest.raises(NotFound):
        service.open_attachment(work, mine.id, one.id)


def test_corrupt_bytes_are_not_handed_out(works, staff, track, blobs):
    row = hand_in(staff)
    one = attach(staff, blobs, "mia", row.id)
    with works.begin(OPERATOR) as work:
        work.session.execute(
            update(Blob).where(Blob.sha256 == one.sha256).values(corrupt_at=work.now)
        )
    with staff.begin("aud", read_only=True) as work, pytest.raises(Corrupt):
        service.open_attachment(work, row.id, one.id)
    attach(staff, blobs, "mia", row.id, name="again.csv")  # heals what is stored
    with staff.begin("aud", read_only=True) as work:
        assert service.open_attachment(work, row.id, one.id) == one


def test_fsck_keeps_what_a_reference_names_and_clears_the_rest(works, staff, track, blobs):
    row = hand_in(staff)
    one = attach(staff, blobs, "mia", row.id)
    with blobs.writer() as writer:
        writer.write(b"a signed document")
        document = writer.commit()
    with blobs.writer() as writer:
        writer.write(b"nobody's")
        loose = writer.commit()
    with works.begin(OPERATOR) as work:
        for _ in range(2):
            refer(work, document.sha256, size=document.size, owner="agreement:x", blobs=blobs)
        work.session.add(Blob(sha256=loose.sha256, size=loose.size, created_at=work.now))
    with works.begin(read_only=True) as work:
        owners = set(work.session.execute(select(BlobReference.owner)).scalars())
    assert owners == {f"evidence:{row.id}", "agreement:x"}
    report = fsck.check(works, blobs, repair=True, grace=timedelta(0), actor=OPERATOR)
    assert report.unreferenced == [loose.sha256]
    assert blobs.has(one.sha256)
    assert blobs.has(document.sha256)
    assert not blobs.has(loose.sha256)
    with staff.begin("aud", read_only=True) as work:
        assert service.open_attachment(work, row.id, one.id) == one


def test_holders_hand_in_so_much_an_hour_and_staff_as_much_as_they_need(
    works, staff, track, blobs, clock, monkeypatch
):
    add_partner(works, staff, track.id, org="lab", handle="pam")
    partner = "pam"
    monkeypatch.setitem(throttle.LIMITS, throttle.Written.PIECE, 2)
    monkeypatch.setitem(throttle.LIMITS, throttle.Written.FILE, 1)
    monkeypatch.setattr(throttle, "ORGANISATION_FACTOR", 1)
    first = hand_in(staff, partner)
    attach(staff, blobs, partner, first.id)
    with pytest.raises(TooMany) as refused:
        attach(staff, blobs, partner, first.id, name="more.csv", data=b"more")
    assert 0 < refused.value.retry_after <= 3600
    hand_in(staff, partner)
    before = len(leaves(works))
    with pytest.raises(TooMany) as refused:
        hand_in(staff, partner)
    assert refused.value.reason == "evidence.too-many"
    assert leaves(works, before) == []
    for _ in range(3):
        hand_in(staff)
    clock.move(timedelta(hours=1))
    hand_in(staff, partner)
    attach(staff, blobs, partner, first.id, name="more.csv", data=b"more")
