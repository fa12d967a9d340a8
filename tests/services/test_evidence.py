"""Evidence through its life: written, submitted, judged, disputed, superseded, retracted, shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from make_evidence import BASELINE, CARD, DAY, FOUND, THEN, WEIGHTS, accepted, add_partner, hand_in
from make_release import (
    database_url,
    leaves,
    make_revision,
    make_track,
    staff,
    staffed,
    track,
)
from sqlalchemy import delete, select, update

from stagerelease.catalog import queries as catalog
from stagerelease.evidence import queries, service
from stagerelease.evidence.tables import EvidenceAuthor, EvidenceEvent
from stagerelease.identity import service as identity
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR
from stagerelease.kernel.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
    Unauthenticated,
)
from stagerelease.partners.tables import Grant, Signature
from stagerelease.releases import service as releases
from stagerelease.releases.tables import Promotion

__all__ = ["database_url", "staff", "staffed", "track"]


def seen(staff, who, evidence_id):
    """Return the page of evidence as ``who`` sees it, or None."""
    try:
        with staff.begin(who, read_only=True) as work:
            return service.show_evidence(work, evidence_id)
    except NotFound:
        return None


def seen_by_all(works, evidence_id):
    with works.begin(ANONYMOUS, read_only=True) as work:
        listed = [row.id for row in service.list_evidence(work)]
        try:
            page = service.show_evidence(work, evidence_id)
        except Unauthenticated:
            page = None
    assert (page is not None) == (evidence_id in listed)
    return page


def told(works):
    """Return the events that notices were asked to tell, with the people and roles."""
    with works.begin(read_only=True) as work:
        rows = work.session.execute(
            select(Job.payload).where(Job.kind == "notices.deliver").order_by(Job.id)
        ).scalars()
        return [
            (p["event"], p["people"], p["roles"]) for p in rows if p["event"][:9] == "evidence."
        ]


# --- writing and submitting ----------------------------------------------------------------------


def test_staff_submit_and_another_accepts(works, staff, track, clock):
    before = len(leaves(works))
    row = hand_in(staff, "mia")
    assert (row.state, row.subject_kind, row.submitted_at) == ("submitted", "file", clock.now())
    clock.move(DAY)
    with staff.begin("rae") as work:
        done = service.accept(work, row.id, reason="Read in the source.")
    assert (done.state, done.accepted_at) == ("accepted", clock.now())
    assert done.accepted_by == staff.id("rae")
    assert leaves(works, before) == [
        *("evidence.drafted", "evidence.submitted", "evidence.accepted"),
    ]
    page = seen(staff, "aud", row.id)
    assert [e.to_state for e in page.events] == ["draft", "submitted", "accepted"]
    assert page.authors == (staff.id("mia"),)
    assert [event for event, _, _ in told(works)] == ["evidence.submitted", "evidence.accepted"]
    assert told(works)[1][1] == [staff.id("mia")]


def test_a_detectors_claim_has_its_precision_beside_it(staff, track):
    page = seen(staff, "aud", hand_in(staff).id)
    assert [round(one.percent, 1) for one in page.precision] == [16.1]
    assert page.beside[0].startswith("At the stated base rate of 1 %, 16.1 % of alarms")


def test_a_draft_is_its_authors_until_it_is_submitted(works, staff, track):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    with staff.begin("pia") as work:
        row = service.draft(work, replace(FOUND, public=True))
        row = service.edit(work, row.id, replace(FOUND, title="Another title"))
    assert (row.state, row.title) == ("draft", "Another title")
    with staff.begin("rae") as work, pytest.raises(NotFound):
        service.edit(work, row.id, FOUND)
    with staff.begin("rae") as work, pytest.raises(Conflict):
        service.accept(work, row.id)
    with staff.begin("pia") as work:
        assert service.submit(work, row.id).state == "submitted"
        with pytest.raises(Conflict):
            service.submit(work, row.id)
        with pytest.raises(Conflict, match="only drafts change"):
            service.edit(work, row.id, FOUND)


def test_a_draft_is_changed_as_it_was_seen_or_not_at_all(works, staff, track):
    with staff.begin("mia") as work:
        row = service.draft(work, FOUND)
        seen = service.content_sha256(service.open_draft(work, row.id))
        changed = service.edit(work, row.id, replace(FOUND, title="First"), seen=seen)
        with pytest.raises(Stale, match="changed after you opened it"):
            service.edit(work, row.id, replace(FOUND, title="Second"), seen=seen)
        assert service.open_draft(work, row.id).title == "First"
        now = service.content_sha256(changed)
        assert service.edit(work, row.id, replace(FOUND, title="Third"), seen=now).title == "Third"
        service.submit(work, row.id)
        with pytest.raises(Conflict, match="only drafts change"):
            service.open_draft(work, row.id)
    with staff.begin("rae") as work, pytest.raises(NotFound):
        service.open_draft(work, row.id)
    with staff.begin("aud") as work, pytest.raises(Forbidden):
        service.open_draft(work, row.id)


def test_what_waited_too_long_is_looked_at_again_when_submitted(works, staff, track, clock):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    with staff.begin("pia") as work:
        row = service.draft(work, BASELINE)
    with works.begin(OPERATOR) as work:
        work.session.execute(update(Grant).values(state="revoked"))
    with staff.begin("pia") as work, pytest.raises(Forbidden) as refused:
        service.submit(work, row.id)
    assert refused.value.reason == "evidence.not-held"


@pytest.mark.parametrize("who", ["aud", "nia"])
def test_who_submits_no_evidence_cannot(staff, track, who):
    with pytest.raises(Forbidden):
        hand_in(staff, who)


def test_nobody_at_all_cannot(works, track):
    with works.begin(ANONYMOUS) as work, pytest.raises(Unauthenticated):
        service.hand_in(work, BASELINE)


def test_the_subject_is_a_file_or_manifest_here(works, staff, track):
    with works.begin(read_only=True) as work:
        manifest = catalog.load_revision(work, track.revision_id).manifest_sha256
    assert hand_in(staff, subject_sha256=manifest).subject_kind == "manifest"
    assert hand_in(staff, subject_sha256=CARD).subject_kind == "file"
    with pytest.raises(Invalid) as refused:
        hand_in(staff, subject_sha256="e" * 64)
    assert refused.value.fields[0].field == "subject_sha256"


def test_the_writer_is_always_an_author_and_staff_may_name_others(staff, track):
    row = hand_in(staff, "mia", authors=["rae", "mia"])
    assert set(seen(staff, "aud", row.id).authors) == {staff.id("mia"), staff.id("rae")}
    with staff.begin("rae") as work, pytest.raises(Forbidden) as refused:
        service.accept(work, row.id)
    assert refused.value.reason == "evidence.own"
    with staff.begin("rob") as work:
        assert service.accept(work, row.id).state == "accepted"
    with pytest.raises(Invalid) as unknown:
        hand_in(staff, "mia", authors=["nobody"])
    assert unknown.value.fields[0].field == "authors"


def test_no_author_is_written_out_of_a_draft_by_another(works, staff, track):
    with staff.begin("rae") as work:
        row = service.draft(work, BASELINE, authors=["sam", "rob"])
    with staff.begin("sam") as work:
        service.edit(work, row.id, BASELINE)
        service.submit(work, row.id)
    everybody = {staff.id(who) for who in ("rae", "sam", "rob")}
    assert set(seen(staff, "aud", row.id).authors) == everybody
    with staff.begin("rae") as work, pytest.raises(Forbidden) as refused:
        service.accept(work, row.id)
    assert refused.value.reason == "evidence.own"
    with works.begin(OPERATOR) as work:  # whoever entered it wrote it, whatever other rows say
        work.session.execute(delete(EvidenceAuthor).where(EvidenceAuthor.evidence_id == row.id))
    assert seen(staff, "aud", row.id).authors == (staff.id("rae"),)


def test_a_holder_submits_about_what_they_hold_for_their_organisation(works, staff, track):
    organisation = add_partner(works, staff, track.id, org="cornell", handle="pia")
    with works.begin(OPERATOR) as work:
        make_revision(work, "other/one", salt="b")
    row = hand_in(staff, "pia")
    assert row.organisation_id == organisation
    for digest in ("b" * 64, CARD, "e" * 64):  # others', not of the kind held, nobody's
        with pytest.raises(Forbidden) as refused:
            hand_in(staff, "pia", subject_sha256=digest)
        assert refused.value.reason == "evidence.not-held"
    with pytest.raises(NotFound):
        hand_in(staff, "pia", organisation="elsewhere")
    with pytest.raises(Invalid):  # would shut a reviewer out of the quorum
        hand_in(staff, "pia", authors=["rae"])


@pytest.mark.parametrize(
    "change",
    [
        {"state": "suspended"},
        {"state": "pending"},
        {"state": "revoked"},
        {"state": "expired"},
        {"valid_until": THEN},
        {"valid_from": THEN + 365 * DAY},
    ],
)
def test_a_grant_that_is_not_active_carries_nothing(works, staff, track, change):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    with works.begin(OPERATOR) as work:
        work.session.execute(update(Grant).values(**change))
    with pytest.raises(Forbidden):
        hand_in(staff, "pia")


@pytest.mark.parametrize("change", [{"state": "terminated"}, {"valid_until": THEN}])
def test_a_grant_whose_signature_ended_carries_nothing(works, staff, track, change):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    with works.begin(OPERATOR) as work:
        work.session.execute(update(Signature).values(**change))
    with pytest.raises(Forbidden):
        hand_in(staff, "pia")


def test_nothing_is_kept_of_what_is_refused(works, staff, track):
    before = len(leaves(works))
    for wrong in (
        {"value": float("nan")},
        {"unit": "seconds"},
        {"measured_at": THEN + 3650 * DAY},
        {"conditions": {}},
        {"subject_sha256": "e" * 64},
    ):
        with pytest.raises(Invalid):
            hand_in(staff, **wrong)
    with staff.begin("mia", read_only=True) as work:
        assert service.list_evidence(work) == []
    assert len(leaves(works)) == before
    assert told(works) == []


HOSTILE = [
    "<script>alert(1)</script>",
    "{{7*7}} ${jndi:ldap://x} %s %n",
    "'; DROP TABLE evidence; --",
    '=HYPERLINK("https://x")',
    "Ωμέγα 漢字 🙂 e\u0301",
    "[bold red]not markup[/]",
    "x" * 200,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_kept_as_text(works, staff, track, text):
    for name in ("title", "source", "finding", "caveat", "author_name"):
        row = hand_in(staff, new=FOUND, **{name: text})
        with works.begin(read_only=True) as work:
            assert getattr(queries.load_evidence(work, row.id), name) == text
    row = accepted(staff, new=FOUND)
    with staff.begin("rob") as work:
        assert service.retract(work, row.id, reason=text).state_reason == text


UNKEEPABLE = ["\x00", "a\x1b[2Jb", "\u202etxt.exe", "\ud800", "\r\nSet-Cookie: a=b", "\u2028"]


@pytest.mark.parametrize("text", UNKEEPABLE)
def test_text_that_is_no_text_is_refused_by_field(staff, track, text):
    for name in ("title", "source", "finding", "caveat", "author_name"):
        with pytest.raises(Invalid) as refused:
            hand_in(staff, new=FOUND, **{name: f"a{text}b"})
        assert [f.field for f in refused.value.fields] == [name]
    row = accepted(staff, new=FOUND)
    with staff.begin("rob") as work, pytest.raises(Invalid) as reasoned:
        service.retract(work, row.id, reason=f"a{text}b")
    assert [f.field for f in reasoned.value.fields] == ["reason"]


# --- deciding ------------------------------------------------------------------------------------


def test_nobody_decides_on_their_own(staff, track):
    row = hand_in(staff, "max")
    for act in (service.accept, service.reject):
        with staff.begin("max") as work, pytest.raises(Forbidden) as refused:
            act(work, row.id, reason="Mine.")
        assert refused.value.reason == "evidence.own"


def test_only_a_person_decides(works, staff, track):
    row = hand_in(staff, "mia")
    with works.begin(OPERATOR) as work, pytest.raises(Forbidden) as refused:
        service.accept(work, row.id)
    assert refused.value.reason == "human.needed"
    with staff.begin("bot") as work, pytest.raises(Forbidden) as machine:
        service.accept(work, row.id)
    assert machine.value.reason == "human.needed"
    with staff.begin("aud") as work, pytest.raises(Forbidden):
        service.accept(work, row.id)


@pytest.mark.parametrize("machine", ["operator", "bot"])
def test_a_machine_writes_a_draft_and_a_person_hands_it_in(staff, track, machine):
    """Else whoever runs the machine would accept, and approve on, what they wrote themselves."""
    with staff.begin(machine) as work:
        row = service.draft(work, BASELINE, authors=["mia"])
    with staff.begin(machine) as work, pytest.raises(Forbidden) as refused:
        service.submit(work, row.id)
    assert refused.value.reason == "human.needed"
    with staff.begin("mia") as work:
        service.submit(work, row.id)
    assert staff.id("mia") in seen(staff, "aud", row.id).authors
    with staff.begin("mia") as work, pytest.raises(Forbidden) as own:
        service.accept(work, row.id)
    assert own.value.reason == "evidence.own"
    with staff.begin("rae") as work:
        assert service.accept(work, row.id).state == "accepted"


def test_recalled_is_never_accepted(staff, track):
    row = hand_in(staff, fact_status="recalled")
    assert "Not established" in seen(staff, "aud", row.id).beside[-1]
    with staff.begin("rae") as work, pytest.raises(Conflict) as refused:
        service.accept(work, row.id)
    assert refused.value.reason == "evidence.recalled"


@pytest.mark.parametrize(
    ("status", "established"), [("verified", True), ("computed", True), ("reported", False)]
)
def test_what_is_reported_is_accepted_but_not_established(staff, track, status, established):
    assert accepted(staff, fact_status=status).established is established


def test_a_rejection_has_a_reason_its_authors_read(works, staff, track):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    row = hand_in(staff, "pia")
    with staff.begin("rae") as work, pytest.raises(Invalid):
        service.reject(work, row.id, reason=" ")
    with staff.begin("rae") as work:
        service.reject(work, row.id, reason="The sampler is not the one used.")
    assert seen(staff, "pia", row.id).evidence.state_reason == "The sampler is not the one used."
    with staff.begin("rae") as work, pytest.raises(Conflict):
        service.accept(work, row.id)


def test_a_dispute_is_ended_by_somebody_else(staff, track):
    row = accepted(staff)
    with staff.begin("sam") as work:
        assert service.dispute(work, row.id, reason="Wrong split.").state == "disputed"
    with staff.begin("rob") as work, pytest.raises(Conflict) as again:
        service.accept(work, row.id)
    assert again.value.reason == "evidence.state"
    for who in ("mia", "sam"):  # who wrote it, who disputed it
        with staff.begin(who) as work, pytest.raises(Forbidden):
            service.resolve(work, row.id, reason="Fine.")
    with staff.begin("rob") as work:
        done = service.resolve(work, row.id, reason="The split is right.")
    assert (done.state, done.accepted_at) == ("accepted", row.accepted_at)
    with staff.begin("rob") as work, pytest.raises(Conflict):
        service.resolve(work, row.id, reason="Again.")


def test_holders_dispute_what_is_about_their_track_and_nobody_else_does(works, staff, track):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    row = accepted(staff, public=True)
    with staff.begin("rob") as work:
        service.approve_public(work, row.id)
    with staff.begin("nia") as work, pytest.raises(Forbidden):
        service.dispute(work, row.id, reason="I doubt it.")
    with staff.begin("pia") as work:
        assert service.dispute(work, row.id, reason="Wrong split.").state == "disputed"
    with staff.begin("rae") as work:
        service.resolve(work, row.id, reason="It is right.")
    with works.begin(OPERATOR) as work:
        work.session.execute(update(Grant).values(state="revoked"))
    assert seen(staff, "pia", row.id) is not None  # as everybody sees it
    with staff.begin("pia") as work, pytest.raises(Forbidden) as refused:
        service.dispute(work, row.id, reason="Again.")
    assert refused.value.reason == "evidence.not-held"


def test_authors_and_deciders_retract(works, staff, track):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    add_partner(works, staff, track.id, org="oregon", handle="olu")
    row = accepted(staff, "pia")
    with staff.begin("olu") as work, pytest.raises(Forbidden) as refused:
        service.retract(work, row.id, reason="I doubt it.")
    assert refused.value.reason == "evidence.not-yours"
    with staff.begin("pia") as work:
        assert service.retract(work, row.id, reason="A bug of ours.").state == "retracted"
    with staff.begin("rae") as work, pytest.raises(Conflict):
        service.retract(work, row.id, reason="Again.")
    other = accepted(staff, "pia")
    with staff.begin("sam") as work:
        assert service.retract(work, other.id, reason="Wrong.").state == "retracted"
    with staff.begin("aud") as work, pytest.raises(Forbidden):
        service.retract(work, other.id, reason="Auditors change nothing.")
    events = [event for event, _, _ in told(works)]
    assert events.count("evidence.retracted") == 2


def test_newer_evidence_supersedes_older_when_it_is_accepted(staff, track):
    old = accepted(staff)
    new = hand_in(staff, supersedes=old.id, value=94.0, interval=None, interval_level=None)
    assert seen(staff, "aud", old.id).evidence.state == "accepted"
    with staff.begin("rae") as work:
        service.accept(work, new.id)
    page = seen(staff, "aud", old.id)
    assert (page.evidence.state, page.superseded_by) == ("superseded", new.id)
    assert page.events[-1].to_state == "superseded"
    with staff.begin("rae") as work, pytest.raises(Conflict):
        service.dispute(work, old.id, reason="Too late.")


def test_only_what_stands_can_be_superseded(works, staff, track):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    add_partner(works, staff, track.id, org="oregon", handle="olu")
    waiting = hand_in(staff, "pia")
    standing = accepted(staff, "pia")
    for old, who, new in (
        (waiting.id, "mia", BASELINE),  # not accepted
        (standing.id, "mia", FOUND),  # another type
        (standing.id, "olu", BASELINE),  # somebody else's
        ("evd_nothing", "mia", BASELINE),
    ):
        with pytest.raises(Invalid) as refused:
            hand_in(staff, who, new, supersedes=old)
        assert refused.value.fields[0].field == "supersedes"
    said = []
    for old in (standing.id, "evd_nothing"):  # what is not theirs sounds like what is not there
        with pytest.raises(Invalid) as unknown:
            hand_in(staff, "olu", supersedes=old)
        said.append(unknown.value.sentence.replace(old, "…"))
    assert said[0] == said[1]


def test_a_second_decision_loses(works, staff, track):
    row = hand_in(staff)
    with staff.begin("rae") as work:
        service.accept(work, row.id)
    for act in (service.accept, service.reject):
        with staff.begin("rob") as work, pytest.raises(Conflict):
            act(work, row.id, reason="Second.")
    with works.begin(read_only=True) as work:
        events = work.session.execute(
            select(EvidenceEvent.to_state).where(EvidenceEvent.evidence_id == row.id)
        ).scalars()
        assert sorted(events) == ["accepted", "draft", "submitted"]


# --- who sees what -------------------------------------------------------------------------------


def test_a_holder_sees_their_own_and_what_was_accepted_about_what_they_hold(works, staff, track):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    add_partner(works, staff, track.id, org="oregon", handle="olu")
    own = hand_in(staff, "pia")
    theirs = hand_in(staff, "olu")
    assert seen(staff, "pia", own.id) is not None
    assert seen(staff, "pia", theirs.id) is None
    assert seen(staff, "nia", own.id) is None
    with staff.begin("rae") as work:
        service.accept(work, theirs.id)
    page = seen(staff, "pia", theirs.id)
    assert page.evidence.value == 95.0
    assert (page.authors, page.events, page.organisation) == ((), (), None)
    assert (page.evidence.created_by, page.evidence.organisation_id) == ("", None)
    with staff.begin("pia", read_only=True) as work:
        assert {row.id for row in service.list_evidence(work)} == {own.id, theirs.id}
        by_organisation = [
            [row.id for row in service.list_evidence(work, service.Wanted(organisation=one))]
            for one in (own.organisation_id, theirs.organisation_id)
        ]
    assert by_organisation == [[own.id], []]
    with works.begin(OPERATOR) as work:  # and no longer, once the grant has ended
        work.session.execute(update(Grant).values(state="revoked"))
    assert seen(staff, "pia", theirs.id) is None
    assert seen(staff, "pia", own.id) is not None


def test_a_narrow_token_sees_no_more_than_the_public(works, staff, track):
    add_partner(works, staff, track.id, org="cornell", handle="pia")
    row = accepted(staff)
    with works.begin(OPERATOR) as work:
        _, token = identity.create_token(work, person="pia", name="t", scopes=["download"])
    staff.tokens["narrow"] = token
    assert seen(staff, "pia", row.id) is not None
    assert seen(staff, "narrow", row.id) is None


def test_the_public_sees_what_is_accepted_marked_and_approved(works, staff, track):
    row = hand_in(staff, public=True, caveat="One cohort.")
    hidden = accepted(staff)
    assert seen_by_all(works, row.id) is None
    with staff.begin("rob") as work:
        service.accept(work, row.id)
    assert seen_by_all(works, row.id) is None
    with staff.begin("rob") as work:
        service.approve_public(work, row.id)
        with pytest.raises(Conflict) as refused:
            service.approve_public(work, hidden.id)
    assert refused.value.reason == "evidence.not-public"
    page = seen_by_all(works, row.id)
    assert page.beside == (page.beside[0], "One cohort.")
    assert (page.authors, page.events) == ((), ())
    assert (page.evidence.accepted_by, page.evidence.public_approved_by) == (None, None)
    assert seen_by_all(works, hidden.id) is None
    with staff.begin("rae") as work:
        service.approve_public(work, row.id, shown=False)
    assert seen_by_all(works, row.id) is None


def test_the_public_sees_marked_evidence_of_an_applied_promotion(works, staff, track, clock):
    row, unmarked = accepted(staff, public=True), accepted(staff)
    with works.begin(OPERATOR) as work:
        work.session.add(
            Promotion(
                track_id=track.id,
                from_stage="internal",
                to_stage="partner",
                state="scheduled",
                requester_id=staff.id("mia"),
                rationale="Why.",
                manifest_sha256="0" * 64,
                plan_version_id=track.plan_version_id,
                evidence_ids=[row.id, unmarked.id],
                request_hash="0" * 64,
                created_at=clock.now(),
            )
        )
    assert seen_by_all(works, row.id) is None
    with works.begin(OPERATOR) as work:
        work.session.execute(update(Promotion).values(state="applied"))
    assert seen_by_all(works, row.id) is not None
    assert seen_by_all(works, unmarked.id) is None
    with staff.begin("sam") as work:
        service.dispute(work, row.id, reason="Wrong split.")
    assert seen_by_all(works, row.id) is None


UNLISTED = """
plan: quiet
title: Quiet
stages:
  - {name: internal, audience: staff}
  - {name: partner, audience: organisations, agreement: model-sharing, listed: false}
  - {name: public, audience: everyone}
"""


def test_evidence_tells_of_no_release_that_is_not_listed(works, staff):
    quiet = make_track(works, repo_id="gpt2-mini/quiet", plan=UNLISTED, salt="9")
    first = accepted(staff, public=True, subject_sha256="9" * 64)

    def promote(to, *evidence_ids):
        with staff.begin("mia") as work:
            request = releases.open_promotion(
                work, track_id=quiet.id, to=to, rationale="Why.", evidence_ids=evidence_ids
            )
        for who in ("rob", "roy"):
            with staff.begin(who) as work:
                releases.approve(work, request.id, request_hash=request.request_hash)
        with staff.begin("mia") as work:
            releases.apply(work, request.id)

    promote("partner", first.id)
    assert seen_by_all(works, first.id) is None
    second = accepted(staff, public=True, subject_sha256="9" * 64)
    promote("public", second.id)
    assert seen_by_all(works, second.id) is not None
    assert seen_by_all(works, first.id) is None  # what the public decision did not rest on


def test_its_authors_do_not_approve_evidence_for_the_public(staff, track):
    row = accepted(staff, "mia", public=True, authors=["sam"])
    for who in ("mia", "sam"):
        with staff.begin(who) as work, pytest.raises(Forbidden) as refused:
            service.approve_public(work, row.id)
        assert refused.value.reason == "evidence.own"
    with staff.begin("rob") as work:
        assert service.approve_public(work, row.id).public_approved_at is not None
    with staff.begin("mia") as work:  # to stop it is theirs too
        assert service.approve_public(work, row.id, shown=False).public_approved_at is None


# --- lists and facts -----------------------------------------------------------------------------


def test_pages_of_a_list_hold_everything_once(staff, track):
    ids = [hand_in(staff).id for _ in range(7)]
    ids += [hand_in(staff, new=FOUND).id for _ in range(2)]
    with staff.begin("aud", read_only=True) as work:
        got, after = [], None
        while page := service.list_evidence(work, limit=4, after=after):
            assert len(page) <= 4
            got += [row.id for row in page]
            after = page[-1].id
        wanted = service.Wanted(type="finetune_misuse", state="submitted", subject=WEIGHTS)
        assert len(service.list_evidence(work, wanted)) == 2
        assert service.list_evidence(work, after="\x00") == []
        for wrong in ({"state": "nonsense"}, {"type": "nonsense"}, {"subject": "\x00"}):
            with pytest.raises(Invalid):
                service.list_evidence(work, service.Wanted(**wrong))
    assert sorted(got) == sorted(ids)
    assert got == sorted(ids, reverse=True)


def test_facts_say_what_gates_may_know(works, staff, track):
    one = accepted(staff, "mia", authors=["max"])
    two = accepted(staff, new=FOUND)
    with staff.begin("mia") as work:
        third = service.draft(work, BASELINE)
    with works.begin(read_only=True) as work:
        about = queries.facts_about(work, [WEIGHTS, CARD, "\x00"])
        named = queries.facts_of(work, [third.id, one.id, "evd_nothing", "\x00", ""])
    assert {fact.id for fact in about} == {one.id, two.id}
    assert {fact.id: fact.state for fact in named} == {one.id: "accepted", third.id: "draft"}
    fact = next(f for f in about if f.id == one.id)
    assert fact.authors == {staff.id("mia"), staff.id("max")}
    assert (fact.value, fact.unit, fact.interval, fact.n) == (95.0, "percent", (94.5, 95.5), 10_000)
    assert fact.conditions["sampler"] == "top-k 40"
    assert fact.conditions["text_length"] == 1024
    found = next(f for f in about if f.id == two.id)
    assert (found.metric, found.unit, found.value, found.verdict) == (
        *("finding", "verdict", 2.0, "feasible"),
    )
    assert found.author_name == "Middlebury CTEC"


def test_ids_no_database_keeps_are_unknown(staff, track):
    for odd in ("\x00", "\ud800", "x" * 500, "", "évidence", "' OR 1=1"):
        with staff.begin("rae") as work:
            for act in (
                lambda odd=odd: service.show_evidence(work, odd),
                lambda odd=odd: service.accept(work, odd),
                lambda odd=odd: service.retract(work, odd, reason="Why."),
                lambda odd=odd: service.submit(work, odd),
            ):
                with pytest.raises(NotFound):
                    act()
