"""Reports by anybody: floods, hostile text, references, words added, being forgotten."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from make_incidents import confirmed, report, secured, triaged
from make_partners import database_url, partnered, world
from sqlalchemy import delete, func, select

from stagerelease.db.tables import HourlyCount
from stagerelease.incidents import receipts, rules, service
from stagerelease.incidents.tables import (
    Incident,
    IncidentEvent,
    IncidentReport,
    IncidentThrottleSalt,
    IncidentUpdate,
)
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound, TooMany
from stagerelease.ledger import queries as ledger
from stagerelease.ledger.tables import LogCommitment, LogLeaf

__all__ = ["database_url", "partnered", "secured", "world"]  # fixtures


def count(world, table=Incident):
    with world.works.begin(read_only=True) as work:
        return work.session.execute(select(func.count()).select_from(table)).scalar_one()


def follow(world, reference):
    with world.works.begin(read_only=True) as work:
        return service.follow(work, reference)


# --- taking a report ----------------------------------------------------------------------------


def test_anybody_reports_without_an_account_and_gets_a_reference(world):
    taken = report(world, about="gpt2-mini/one", contact=" me@example.org ")
    seen = follow(world, taken.reference)
    assert (seen.incident_id, seen.state, seen.has_contact) == (taken.incident_id, "reported", True)
    with world.works.begin(read_only=True) as work:
        row = work.session.execute(select(IncidentReport)).scalar_one()
        assert row.contact == "me@example.org"
        assert row.reporter_id is None
        assert taken.reference.encode() not in bytes(row.secret_sha256)


def test_nothing_tells_whether_what_it_is_about_exists(world):
    there = report(world, about="gpt2-mini/one")
    not_there = report(world, about="secret/internal")
    assert type(there) is type(not_there)
    assert follow(world, there.reference).state == follow(world, not_there.reference).state


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "'; DROP TABLE incident; --",
    "{{config}} ${jndi:ldap://x} %n%n%n",
    "../../../../etc/passwd",
    '=HYPERLINK("http://x")',
    "🙂" * 8_000,
    "a\n" * 3_999 + "b",
    "To: everybody\r\nBcc: x@example.org",
    "\U000e0041 tag",
    "Z̸̡a̷l̵g̶o̷" * 100,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_kept_as_written_or_refused_in_words(world, text):
    try:
        taken = report(world, text=text)
    except Invalid as error:
        assert error.fields[0].field == "text"  # noqa: PT017 (either answer is right)
        assert count(world) == 0
        return
    assert follow(world, taken.reference).text == text.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", ""),
        ("text", " \n "),
        ("text", "x" * 8_001),
        ("text", "a\x00b"),
        ("text", "a\u202eb"),
        ("text", "a\ud800b"),
        ("about", "x" * 201),
        ("about", "a\nb"),
        ("contact", "x" * 321),
        ("contact", "me@example.org\nBcc: all@example.org"),
        ("contact", "\x1b[2J"),
    ],
)
def test_what_cannot_be_kept_is_refused_beside_its_field(world, field, value):
    with pytest.raises(Invalid) as refused:
        report(world, **{field: value})
    assert [f.field for f in refused.value.fields] == [field]
    assert count(world) == 0


# --- floods -------------------------------------------------------------------------------------


def flood(world, n, network):
    refusals = []
    for _ in range(n):
        try:
            report(world, network=network)
        except TooMany as error:
            refusals.append(error)
    return refusals


def test_one_network_is_stopped_and_told_honestly_until_when(world, clock):
    clock.move(timedelta(minutes=47, seconds=12, milliseconds=400))
    refusals = flood(world, 12, "203.0.113.0/24")
    assert count(world) == rules.PER_NETWORK
    assert len(refusals) == 12 - rules.PER_NETWORK
    assert {error.retry_after for error in refusals} == {12 * 60 + 48}
    assert not flood(world, 1, "198.51.100.0/24")
    clock.move(timedelta(seconds=12 * 60 + 46))  # a moment before what was said
    assert flood(world, 1, "203.0.113.0/24")
    clock.move(timedelta(seconds=2))
    assert not flood(world, 1, "203.0.113.0/24")


def test_many_networks_together_are_stopped_too_and_people_with_an_account_are_not(secured):
    refusals = []
    for number in range(rules.IN_ALL + 10):
        refusals += flood(secured, 1, f"203.0.{number}.0/24")
    assert count(secured) == rules.IN_ALL
    assert len(refusals) == 10
    report(secured, "ann")  # a partner's report still comes in
    assert count(secured) == rules.IN_ALL + 1


def test_one_person_is_stopped_too(secured):
    for _ in range(rules.PER_PERSON):
        report(secured, "rex")
    with pytest.raises(TooMany):
        report(secured, "rex")
    report(secured, "ron")


def test_refused_reports_leave_nothing_behind(world):
    flood(world, rules.PER_NETWORK, "n")
    leaves = count(world, LogLeaf)
    assert flood(world, 20, "n")
    assert count(world, LogLeaf) == leaves
    assert count(world) == rules.PER_NETWORK


def test_networks_are_not_kept_and_their_digests_are_forgotten(world, clock):
    flood(world, 1, "203.0.113.0/24")
    with world.works.begin(read_only=True) as work:
        keys = list(work.session.execute(select(HourlyCount.key)).scalars())
    assert not any("203.0.113" in key for key in keys)
    clock.move(timedelta(hours=4))
    flood(world, 1, "203.0.113.0/24")
    with world.works.begin(read_only=True) as work:
        later = list(work.session.execute(select(HourlyCount.key)).scalars())
    assert set(keys) & set(later) == {"incident.everybody"}  # another hour, another salt
    assert count(world, IncidentThrottleSalt) == 1
    assert count(world, HourlyCount) == 2


def test_callers_at_once_never_get_more_than_the_limit(world):
    refusals: list[Exception] = []

    def one():
        refusals.extend(flood(world, 3, "203.0.113.0/24"))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(world) == rules.PER_NETWORK
    assert len(refusals) == 12 - rules.PER_NETWORK


# --- references ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference", ["", "x", "a" * 32, "a" * 33, "é" * 32, "\x00" * 32, "' OR 1=1 --", "a" * 10_000]
)
def test_a_wrong_reference_opens_nothing_and_says_nothing(world, reference):
    report(world)
    with pytest.raises(NotFound) as refused:
        follow(world, reference)
    assert refused.value.reason == "incident.reference"
    for act in (
        lambda w: service.add_words(w, reference, text="More."),
        lambda w: service.forget_me(w, reference),
    ):
        with pytest.raises(NotFound), world.works.begin() as work:
            act(work)


def test_a_reference_is_taken_as_it_was_written_down(world):
    taken = report(world)
    spaced = " ".join(taken.reference.upper()[i : i + 4] for i in range(0, 32, 4))
    assert follow(world, f"  {spaced}\n").incident_id == taken.incident_id


def test_references_are_long_and_differ(world):
    seen = {report(world, "rex").reference for _ in range(10)}
    assert len(seen) == 10
    assert all(len(r) == 32 and set(r) <= set("abcdefghijklmnopqrstuvwxyz234567") for r in seen)


# --- following and adding words -----------------------------------------------------------------


def test_the_reporter_sees_the_state_and_the_words_meant_for_them(secured):
    taken = report(secured)
    with secured.begin("sam") as work:
        service.add_note(work, taken.incident_id, text="She is a known troll.")
        service.add_note(
            work, taken.incident_id, text="Thank you. Where did you see it?", visibility="reporter"
        )
    with secured.works.begin(quiet=True) as work:
        seen = service.add_words(work, taken.reference, text="On a forum.\r\nThe link is dead now.")
    assert [(u.by, u.text) for u in seen.updates] == [
        ("staff", "Thank you. Where did you see it?"),
        ("you", "On a forum.\nThe link is dead now."),
    ]
    with secured.begin("sam", read_only=True) as work:
        page = service.show_incident(work, taken.incident_id)
    assert [u.written_by for u in page.updates] == ["staff", "staff", "reporter"]
    assert page.updates[0].visibility == "private"


def test_the_reporter_reads_no_summary_before_it_is_public(secured):
    taken = report(secured)
    with secured.begin("sam") as work:
        service.triage(
            work, taken.incident_id, severity="low", blocking=False, public_summary="Draft words."
        )
    assert follow(secured, taken.reference).public_summary == ""
    with secured.begin("sam") as work:
        service.confirm(work, taken.incident_id, reason="Seen.")
    assert follow(secured, taken.reference).public_summary == "Draft words."


def test_words_are_limited_and_end_with_the_incident(secured, clock):
    taken = report(secured)
    for _ in range(rules.WORDS_PER_REPORT):
        with secured.works.begin(quiet=True) as work:
            service.add_words(work, taken.reference, text="More.")
    with pytest.raises(TooMany), secured.works.begin(quiet=True) as work:
        service.add_words(work, taken.reference, text="More.")
    clock.move(timedelta(hours=1))
    with secured.begin("sam") as work:
        service.triage(work, taken.incident_id, severity="low", blocking=False)
        service.dismiss(work, taken.incident_id, reason="A joke.")
    with pytest.raises(Conflict), secured.works.begin(quiet=True) as work:
        service.add_words(work, taken.reference, text="But!")


# --- being forgotten ----------------------------------------------------------------------------


def test_the_reporter_can_have_their_contact_erased(secured):
    taken = report(secured, contact="me@example.org")
    with secured.works.begin(quiet=True) as work:
        assert not service.forget_me(work, taken.reference).has_contact
    with secured.begin("sam", read_only=True) as work:
        page = service.show_incident(work, taken.incident_id)
    assert page.report.contact is None
    assert page.report.erased_at is not None
    assert page.report.text == "Your weights are on a torrent site."


def named(world, person_id):
    """Return every table, and kind of log entry, that still says this id of incidents."""
    with world.works.begin(read_only=True) as work:
        rows = {
            table.__tablename__
            for table in (IncidentEvent, IncidentUpdate, IncidentReport, Job)
            for row in work.session.scalars(select(table))
            if person_id in repr(vars(row))
        }
        entries = ledger.entries(work, start=0, limit=ledger.log_size(work))
        told = [e.leaf for e in entries if e.leaf["type"].startswith("incident.")]
        return rows, {leaf["type"] for leaf in told if reveals(work, leaf, person_id)}


def reveals(work, leaf, person_id):
    said = (ledger.reveal(work, leaf["actor"]), ledger.detail_body(work, leaf["detail_sha256"]))
    return any(person_id in (text or "") for text in said)


def test_a_reporter_who_was_forgotten_is_named_nowhere(secured):
    taken = report(secured, "rex", contact="me@example.org")
    with secured.begin("rex", quiet=True) as work:
        service.add_words(work, taken.reference, text="More.")
    assert named(secured, secured.id("rex")) == ({"incident_report"}, set())
    with secured.begin("rex", quiet=True) as work:
        service.forget_me(work, taken.reference)
    assert named(secured, secured.id("rex")) == (set(), set())
    with secured.begin("aud", read_only=True) as work:
        page = service.show_incident(work, taken.incident_id)
    assert {e.actor_id for e in page.events} | {u.author_id for u in page.updates} == {"reporter"}


def test_a_report_taken_when_the_log_still_named_reporters_is_unnamed_too(secured):
    who = secured.id("rex")
    taken = report(secured, "rex")
    with secured.works.begin(OPERATOR) as work:  # as it was written then
        event = work.session.scalars(select(IncidentEvent)).one()
        event.actor_id = who
        commitment = ledger.entry(work, event.leaf_idx).leaf["actor"]
        work.session.get(LogCommitment, commitment).value = who
        work.session.execute(delete(Job))
    assert named(secured, who) == ({"incident_event", "incident_report"}, {"incident.reported"})
    with secured.begin("sam") as work:
        service.erase_report(work, taken.incident_id, reason="Asked.")
    assert named(secured, who) == (set(), set())


def test_who_handles_incidents_can_erase_words_too_and_the_incident_stays(secured):
    taken = report(secured, "rex", contact="me@example.org", about="one", text="My name is Rex.")
    with secured.works.begin(quiet=True) as work:
        service.add_words(work, taken.reference, text="Rex again.")
    with pytest.raises(Forbidden), secured.begin("aud") as work:
        service.erase_report(work, taken.incident_id, reason="Asked.", words=True)
    with secured.begin("sam") as work:
        service.erase_report(work, taken.incident_id, reason="Asked.", words=True)
        page = service.show_incident(work, taken.incident_id)
    assert (page.report.text, page.report.about, page.report.reporter_id) == ("[erased]", "", None)
    assert [u.text for u in page.updates] == ["[erased]"]
    assert page.incident.state == "reported"


# --- what everybody reads -----------------------------------------------------------------------


def public(world, **options):
    with world.works.begin(read_only=True) as work:
        return service.public_incidents(work, **options)


def test_nothing_is_public_before_it_is_confirmed(secured):
    number = triaged(secured)
    assert public(secured) == []
    with pytest.raises(NotFound), secured.works.begin(read_only=True) as work:
        service.public_incident(work, number)
    with pytest.raises(Conflict), secured.begin("sam") as work:
        service.add_note(work, number, text="Hear hear.", visibility="public")


def test_the_public_view_has_counts_and_approved_words_and_no_names(secured):
    secured.granted()
    number = confirmed(
        secured, title="Leak by Lab-A, says Rex", advisory="Ann, look after your copies."
    ).incident.id
    with secured.begin("sam") as work:
        service.add_note(work, number, text="Sue suspects Art of Lab-A.")
        service.add_note(work, number, text="We are looking into it.", visibility="public")
    with secured.works.begin(read_only=True) as work:
        receipt = receipts.receipts_for(
            work, person_id="", organisation_ids=[secured.organisation("ann")]
        )[0]
    with secured.begin("ann") as work:
        service.acknowledge(work, receipt.id)
    (seen,) = public(secured)
    assert (seen.state, seen.severity, seen.blocking) == ("confirmed", "high", True)
    assert seen.summary == "Weights were found outside the release."
    assert [u.text for u in seen.updates] == ["We are looking into it."]
    assert (seen.holds_active, seen.holders_told, seen.holders_acknowledged) == (1, 1, 1)
    text = str(seen).lower()
    for name in ("lab", "rex", "ann", "art", "sue", "sam", "torrent", "per_", "org_", "trk_"):
        assert name not in text, name


def test_what_is_internal_is_not_even_counted(secured):
    number = confirmed(secured).incident.id  # the track is at the internal stage
    with secured.works.begin(read_only=True) as work:
        seen = service.public_incident(work, number)
    assert (seen.tracks, seen.families, seen.repos, seen.holds_active) == (0, 0, (), 1)


def test_the_public_list_names_what_everybody_may_know_of_and_is_paged(secured):
    secured.climb("partner")
    numbers = []
    for _ in range(3):
        numbers.append(confirmed(secured, blocking=False).incident.id)
        secured.works.clock.move(timedelta(minutes=1))
    rows = public(secured, limit=2)
    assert [row.id for row in rows] == [numbers[2], numbers[1]]
    assert [row.id for row in public(secured, limit=2, after=rows[-1].id)] == [numbers[0]]
    assert public(secured, after=999) == []
    assert rows[0].repos == ("gpt2-mini/one",)
    assert rows[0].tracks == 1
