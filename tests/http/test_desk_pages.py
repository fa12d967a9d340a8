"""Pages of staff without a browser: hostile words, what moved, plots, steps of each kind."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import pytest

from browsing import browser
from looks import lay_out, side_track
from stagerelease.catalog import queries as catalog
from stagerelease.evidence import service as evidence
from stagerelease.http.pages.desk.figures import DAYS, HIGH, bars
from stagerelease.http.pages.desk.steps import instant, seen_at
from stagerelease.identity import service as identity
from stagerelease.incidents import service as incidents
from stagerelease.incidents.watching import UsageRow
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Invalid
from stagerelease.partners import service as partners
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service

CORPUS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "'-alert(3)-'",
    "</textarea><svg onload=alert(4)>",
    "</title><iframe src=javascript:alert(5)>",
    "{{7*7}}{% raw %}",
    "javascript:alert(6)",
    "<a href=//evil.example style=position:fixed>x</a>",
)
WORDS = " ".join(CORPUS)
SHORT = CORPUS[0] + CORPUS[1]
RAW = re.compile(r"<script>alert|<img|<svg onload|<iframe|<a href=//evil|>49\b|=['\"]javascript:")
PLAN = """plan: {slug}
title: '<img src=x onerror=alert(2)> & <script>alert(1)</script>'
description: '</pre><script>alert(1)</script>'
stages:
  - {{name: internal, audience: staff, listed: false}}
  - {{name: public, audience: everyone}}
"""


def check_inert(page: str, where: str) -> None:
    found = RAW.search(page)
    assert found is None, f"{where}: {page[max(0, found.start() - 80) : found.end() + 40]}"


@pytest.fixture
def hostile(world):
    """Put hostile words on record wherever services take them; return addresses by who reads."""
    names, begin = lay_out(world), world.box.works.begin
    track = side_track(world, "side/hostile", PLAN.format(slug="hostile"))
    with begin(OPERATOR) as work:
        identity.create_person(work, handle="mallory", display_name=SHORT)
        identity.create_organisation(work, slug="evil-lab", name=SHORT)
        identity.add_member(work, organisation="evil-lab", person="mallory", role="partner_member")
    with begin(world.actor("release_manager")) as work:
        row = release_service.open_promotion(work, track_id=track, to="public", rationale=WORDS)
        changed = PLAN.format(slug="hostile") + "request_lifetime: P9D\n"
        proposal = release_service.propose_plan(work, changed, rationale=WORDS)
    with begin(world.actor("reviewer_a")) as work:
        release_service.approve(work, row.id, request_hash=row.request_hash, comment=WORDS)
    with begin(world.actor("security")) as work:
        hold = release_service.lay_hold(
            work, scope="track", scope_id=track, reason=WORDS, public_reason=SHORT
        )
        number = incidents.report(
            work, text=WORDS, about=SHORT, contact="x", network="ab" * 32
        ).incident_id
        incidents.triage(
            work,
            number,
            severity="low",
            blocking=False,
            title=SHORT,
            public_summary=SHORT,
            links=incidents.Links(tracks=[track]),
            reason=WORDS,
        )
        incidents.add_note(work, number, text=WORDS)
        piece = evidence.hand_in(
            work,
            evidence.NewEvidence(
                type="benefit",
                metric="finding",
                title=SHORT,
                subject_sha256=catalog.load_revision(
                    work, releases.load_track(work, track).revision_id
                ).manifest_sha256,
                source=WORDS,
                fact_status="reported",
                measured_at=work.now,
                verdict="some_benefit",
                finding=WORDS,
                caveat=WORDS,
                author_name=SHORT,
            ),
        )
    with begin(world.actor("access_officer")) as work:
        draft = partners.draft_version(work, agreement="researcher-terms", text=f"# {WORDS}\n")
    return names, {
        "reviewer_b": [
            "/staff",
            "/staff/promotions",
            f"/staff/promotions/{row.id}",
            f"/staff/tracks/{track}",
            f"/staff/plan-proposals/{proposal.id}",
            "/staff/plans",
            "/staff/plans/hostile",
            f"/staff/evidence/{piece.id}",
            "/staff/evidence",
        ],
        "security": [
            "/staff/holds",
            f"/staff/holds/{hold.id}",
            "/staff/incidents",
            f"/staff/incidents/{number}",
            f"/staff/incidents/{number}/freeze",
        ],
        "release_manager": ["/staff/plan-editor?base=hostile"],
        "access_officer": [
            f"/staff/agreements/researcher-terms/versions/{draft.version}",
            "/staff/agreements",
        ],
        "owner": ["/staff/people", "/staff/people/mallory", "/staff/organisations/evil-lab"],
    }


def test_hostile_words_on_record_stay_words(world, hostile):
    _, pages = hostile
    escaped = 0
    for who, paths in pages.items():
        with browser(world, who) as client:
            for path in paths:
                got = client.get(path)
                assert got.status_code == 200, path
                check_inert(got.text, path)
                escaped += "&lt;" in got.text
    assert escaped >= 17  # they were there to be seen


FIELDS = (
    *(
        "comment",
        "reason",
        "typed",
        "rationale",
        "scheduled_for",
        "evidence",
        "to",
        "cancel_reason",
    ),
    *("over", "public_reason", "why", "source", "track", "sha256", "text", "about", "title"),
    *("severity", "public_summary", "covers", "advisory", "days", "outcome", "public_outcome"),
    *("mitigate_reason", "dismiss_reason", "reply", "reopen_reason", "advice", "erase_reason"),
    *("accept_reason", "reject_reason", "dispute_reason", "slug", "name", "handle"),
    *("display_name", "email", "role", "ends", "person", "place", "until", "duo", "url"),
    *("events", "since", "delivery", "gate", "request_hash", "seen_at", "end_reason", "visibility"),
    *("answer-card-read", "why-card-read", "waive-card-read", "until-card-read"),
)


def test_hostile_words_typed_into_any_form_come_back_as_words(world, hostile):
    names, _ = hostile
    p, i, e = (names[key] for key in ("asking", "reported", "evidence"))
    forms = {
        "reviewer_b": [
            *(f"/staff/promotions/{p}/{step}" for step in ("approve", "reject", "judge")),
            *(f"/staff/evidence/{e}/{step}" for step in ("reject", "accept")),
            f"/staff/plan-proposals/{names['proposal']}/consent",
        ],
        "release_manager": [
            f"/staff/promotions/{names['approved']}/apply",
            f"/staff/tracks/{names['track']}/promote",
            f"/staff/tracks/{names['track']}/withdraw",
            f"/staff/promotions/{p}/edit",
            "/staff/plan-editor",
            "/staff/plan-editor/check",
            "/staff/holds",
            "/staff/webhooks",
            f"/staff/webhooks/{names['webhook']}/replay",
        ],
        "security": [
            *(f"/staff/incidents/{i}/{step}" for step in ("triage", "note", "close", "mitigate")),
            f"/staff/incidents/{names['triaged']}/confirm",
            f"/staff/promotions/{p}/waive",
            "/staff/incidents",
        ],
        "owner": [
            "/staff/people",
            "/staff/organisations",
            "/staff/people/demo-auditor/roles",
            "/staff/people/demo-auditor/stop",
            "/staff/people/demo-auditor/erase",
            "/staff/organisations/partner-a/members",
            "/staff/organisations/partner-a/revoke",
            "/staff/agreements",
            "/staff/agreements/researcher-terms/draft",
            f"/staff/signatures/{names['signature']}/terminate",
        ],
    }
    sent = dict.fromkeys(FIELDS, SHORT) | {"gate": "card-read"}
    for who, paths in forms.items():
        with browser(world, who, follow_redirects=True) as client:
            for path in paths:
                got = client.post(path, data=sent)
                assert got.status_code < 500, path
                check_inert(got.text, path)


def test_a_step_of_another_role_changes_nothing_and_says_whom_to_ask(world):
    names = lay_out(world)
    with browser(world, "auditor") as client:
        here = f"/staff/promotions/{names['promotion']}"
        got = client.post(here + "/approve", data={"comment": "Mine."})
        assert got.status_code == 403
        assert "promotion:decide" in got.text
        assert "Ask someone who holds" in got.text
    with world.box.works.begin(world.actor("auditor"), read_only=True) as work:
        found = release_service.facts_page(work, int(names["promotion"]))
        assert [one.person for one in found.approvals] == ["demo-reviewer-a"]


def test_a_waiver_takes_two_people_and_stays_on_the_page_for_ever(world):
    names = lay_out(world)
    here = f"/staff/promotions/{names['asking']}"
    until = f"{world.clock.now() + timedelta(days=20):%Y-%m-%d}"
    sent = {"gate": "card-read", "waive-card-read": "Read aloud.", "until-card-read": until}
    with browser(world, "security", follow_redirects=True) as client:
        got = client.post(here + "/waive", data=sent | {"waive-card-read": ""})
        assert got.status_code == 422
        assert "Say why." in got.text
        assert until in got.text  # what was typed is kept
        got = client.post(here + "/waive", data=sent)
        assert "signed by you" in got.text
        waiver = re.search(r"/waivers/(\w+)/end", got.text).group(1)
        assert client.post(f"{here}/waivers/{waiver}/sign").status_code == 409
    with browser(world, "reviewer_b", follow_redirects=True) as client:
        got = client.post(f"{here}/waivers/{waiver}/sign")
        assert "You signed the waiver" in got.text
        assert "Waived until" in got.text
        got = client.post(f"{here}/waivers/{waiver}/end", data={"end_reason": "Read at last."})
        assert "The waiver has ended" in got.text
        assert "Read aloud." in got.text


def test_the_board_is_read_a_window_at_a_time(world):
    for n in range(3):
        side_track(world, f"side/m-{n}")
    with world.box.works.begin(world.actor("auditor"), read_only=True) as work:
        everything = release_service.board(work)
        seen = []
        for offset in range(0, 8, 2):
            window = release_service.board(work, offset=offset, limit=2)
            assert window.more == (offset + 2 < len(everything.rows))
            seen += window.rows
        assert [row.track_id for row in seen] == [row.track_id for row in everything.rows]
        assert {row.repo_id for row in release_service.board(work, named="SIDE/M").rows} == {
            f"side/m-{n}" for n in range(3)
        }
        assert release_service.board(work, named="%").rows == ()
        assert release_service.board(work, waiting_only=True).rows == ()


def test_what_waits_for_somebody_is_what_they_can_do_something_about(world):
    names = lay_out(world)
    asked, asking, approved = (int(names[key]) for key in ("promotion", "asking", "approved"))

    def waits(who: str) -> tuple[list[int], list[int], list[int]]:
        with world.box.works.begin(world.actor(who), read_only=True) as work:
            found = release_service.waiting_for_me(work)
        return tuple(
            [p.id for p in rows] for rows in (found.to_decide, found.to_apply, found.to_mend)
        )

    assert waits("reviewer_a") == ([asking], [], [])  # has decided on the other two
    assert waits("reviewer_b") == ([asked, asking], [], [])
    assert waits("release_manager") == ([], [approved], [])
    assert waits("auditor") == ([], [], [])
    with world.box.works.begin(world.actor("reviewer_b")) as work:
        row = release_service.facts_page(work, asking).promotion
        release_service.request_changes(
            work, asking, request_hash=row.request_hash, comment="Say more."
        )
    assert waits("release_manager") == ([], [approved], [asking])


def test_applying_what_was_edited_since_is_refused(world):
    names = lay_out(world)
    here = f"/staff/promotions/{names['approved']}"
    with browser(world, "release_manager") as client:
        got = client.post(here + "/apply", data={"typed": "side/approved", "request_hash": "0"})
        assert got.status_code == 409
        assert "This moved since you looked" in got.text
        assert 'value="side/approved"' in got.text


def test_attachments_come_as_downloads_and_never_as_pages(world):
    names = lay_out(world)
    with world.box.blobs.writer() as writer:
        writer.write(b"<script>alert(1)</script>")
        stored = writer.commit()
    with world.box.works.begin(world.actor("researcher")) as work:
        row = evidence.note_attached(
            work, world.box.blobs, names["evidence"], filename="a.html", stored=stored
        )
    with browser(world, "reviewer_a") as client:
        got = client.get(f"/staff/evidence/{names['evidence']}/files/{row.id}")
    assert got.headers["content-disposition"].startswith("attachment")
    assert got.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in got.headers["content-security-policy"]


def test_days_without_deliveries_have_a_bar_of_no_height():
    until = date(2026, 3, 2)
    rows = [
        UsageRow(until, "t", "g", deliveries=4, completed=3, files=1, bytes=10, tokens=1),
        UsageRow(until, "t", "h", deliveries=4, completed=4, files=1, bytes=10, tokens=1),
        UsageRow(until - timedelta(days=1), "t", "g", 2, 2, 1, 5, 1),
        UsageRow(until - timedelta(days=DAYS), "t", "g", 99, 99, 1, 5, 1),
    ]
    drawn, highest = bars(rows, until)
    assert (len(drawn), highest) == (DAYS, 8)
    assert [bar.height for bar in drawn[-3:]] == [0, HIGH / 4, HIGH]
    assert (drawn[-1].deliveries, drawn[-1].completed, drawn[-1].bytes) == (8, 7, 20)


def test_an_instant_of_a_form_is_utc_and_nonsense_is_refused():
    now = datetime(2026, 3, 2, tzinfo=UTC)
    assert instant("2026-03-02T00:00", "at") == now
    assert instant("", "at") is None
    with pytest.raises(Invalid):
        instant("soon", "at")
    assert seen_at(None, now) == now


def test_a_plan_that_is_no_yaml_is_told_so_and_stays_in_its_field(world):
    with browser(world, "release_manager") as client:
        for path, status in (("/staff/plan-editor/check", 200), ("/staff/plan-editor", 422)):
            got = client.post(path, data={"source": "plan: [\n", "rationale": "More eyes."})
            assert got.status_code == status
            assert "The plan is not YAML at line 2" in got.text
            assert re.search(r'name="source"[^>]*>\nplan: \[\n</textarea>', got.text)
