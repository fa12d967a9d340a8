"""Release reports: what each audience may read, hostile text, files that need nothing, proofs."""

from __future__ import annotations

import copy
import io
import json
from datetime import timedelta
from html.parser import HTMLParser

import pypdf
import pytest

from stagerelease.demo.world import ORGANISATIONS, PERSONAS
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR, SYSTEM
from stagerelease.kernel.errors import Corrupt, Forbidden, NotFound, Unauthenticated
from stagerelease.ledger import notes
from stagerelease.ledger import service as ledger
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service
from stagerelease.reports.proofs import check
from stagerelease.reports.rendering import document, render
from stagerelease.reports.service import build

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>]]>&amp; #strong[x] 李 $x$ \\ \"'"
SECRETS = (
    *(p.handle for p in PERSONAS.values()),
    *ORGANISATIONS.values(),
    "Demonstration:",  # how every rationale of the demo begins
    "Looked at the card",  # every approval's comment
    "PRIVATE",
)


@pytest.fixture
def tracks(world):
    """Tracks by stage; the public one is on hold for a private and a public reason."""
    with world.box.works.begin(OPERATOR) as work:
        found = {t.stage: t for t in releases.list_tracks(work)}
        release_service.lay_hold(
            work,
            scope="track",
            scope_id=found["public"].id,
            reason=f"PRIVATE {HOSTILE}",
            public_reason=HOSTILE,
        )
    with world.box.works.begin(SYSTEM, quiet=True) as work:
        ledger.sign_checkpoint(work, world.box.signer)
    world.clock.move(timedelta(days=3))
    return found


def made(world, track, audience="public", who=ANONYMOUS):
    with world.box.works.begin(who, read_only=True) as work:
        return build(work, track.id, audience=audience, vkey=world.box.signer.vkey)


class Tags(HTMLParser):
    """Collects tags with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_public_report_names_nobody_and_the_full_one_does(world, tracks):
    report = made(world, tracks["public"])
    for form in ("json", "html"):
        text = render(report, form).decode()
        assert [secret for secret in SECRETS if secret in text] == []
    assert [len(m.approvals) for m in report.moves] == [0, 2, 2, 2]
    assert {a.role for m in report.moves for a in m.approvals} == {"reviewer"}
    full = render(made(world, tracks["public"], "full", OPERATOR), "json").decode()
    assert "demo-reviewer-a" in full
    assert "PRIVATE" in full
    partner = made(world, tracks["partner"])
    assert partner.holders.organisations == 1
    assert partner.holders.lines == ()
    named = made(world, tracks["partner"], "full", OPERATOR)
    assert [line.name for line in named.holders.lines] == [ORGANISATIONS["partner-a"]]
    assert [g.outcome for g in named.ahead_gates if g.kind == "quorum"] == ["pending"]


def test_who_may_have_which(world, tracks):
    with pytest.raises(NotFound):
        made(world, tracks["internal"])
    assert made(world, tracks["internal"], who=OPERATOR).stage == "internal"
    with pytest.raises(Unauthenticated):
        made(world, tracks["public"], "full")
    with pytest.raises(Forbidden):
        made(world, tracks["public"], "full", world.actor("partner"))
    at = f"/api/v1/tracks/{tracks['internal'].id}/report"
    assert world.client().get(at).status_code == 404
    assert world.client().get("/api/v1/tracks/none/report").status_code == 404
    assert world.client("auditor").get(at, params={"audience": "full"}).status_code == 200


def test_gates_are_told_as_they_were_decided(world, tracks):
    """Two reviewers lose their roles afterwards: the report still tells what was decided on."""
    from stagerelease.identity import service as identity

    before = made(world, tracks["public"]).moves
    with world.box.works.begin(OPERATOR) as work:
        for who in ("demo-reviewer-a", "demo-reviewer-b"):
            identity.end_role(work, person=who, role="reviewer")
    after = made(world, tracks["public"]).moves
    assert after == before
    quorum = [g for m in after for g in m.gates if g.kind == "quorum"]
    assert [(g.measured, g.threshold, g.outcome) for g in quorum] == [("2", "2", "passed")] * 3
    assert all(g.rule for m in after for g in m.gates)


def test_the_page_needs_nothing_else_and_runs_nothing(world, tracks):
    answer = world.client().get(f"/api/v1/tracks/{tracks['public'].id}/report")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    parsed = Tags(answer.text)
    scripts = [attrs for tag, attrs in parsed.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "report"}]
    assert {tag for tag, _ in parsed.tags} & {
        "img",
        "link",
        "iframe",
        "object",
        "form",
        "a",
    } == set()
    for _, attrs in parsed.tags:
        assert not {n for n in attrs if n.startswith("on") or n in ("src", "href", "style")}
    assert HOSTILE in "".join(parsed.text)
    assert "@import" not in answer.text
    assert "url(" not in answer.text


def test_the_pdf_is_the_same_every_time_and_hostile_text_is_text(world, tracks):
    report = made(world, tracks["public"])
    first = render(report, "pdf")
    assert first == render(report, "pdf")
    reader = pypdf.PdfReader(io.BytesIO(first))
    text = "".join(page.extract_text() for page in reader.pages)
    assert "#strong[x]" in text.replace("\n", "")
    assert "[U+674E]" in text, "what the typeface lacks is spelled, never left blank"
    assert "demo/gpt2-mini-124M" in text
    assert not [secret for secret in SECRETS if secret in text]
    assert b"/JavaScript" not in first
    assert b"/URI" not in first


def test_the_proofs_check_and_every_lie_is_found(world, tracks):
    vkey = world.box.signer.vkey
    good = json.loads(render(made(world, tracks["public"]), "json"))
    assert check(good, vkey)["entries"] >= 11
    _, stranger = notes.generate_key("somebody.else/log")
    with pytest.raises(Corrupt):
        check(good, stranger)

    def refused(change) -> None:
        bad = copy.deepcopy(good)
        change(bad)
        with pytest.raises(Corrupt):
            check(bad, vkey)

    refused(lambda d: d["moves"][-1].update(to_stage="partner"))
    refused(lambda d: d["moves"][-1].update(at="2020-01-01T00:00:00.000Z"))
    refused(lambda d: d["moves"][0].update(leaf_idx=d["moves"][1]["leaf_idx"]))
    refused(lambda d: d["moves"][0].update(leaf_idx=10**9))
    refused(lambda d: d.update(track_id=tracks["partner"].id))
    refused(lambda d: d.pop("log"))
    refused(lambda d: d.update(moves=None))
    for n in range(len(good["log"]["proofs"])):
        refused(lambda d, n=n: d["log"]["proofs"][n]["hashes"].pop())
        refused(lambda d, n=n: d["log"]["proofs"][n].update(type="track.promoted.not"))
        refused(lambda d, n=n: d["log"]["proofs"][n].update(idx=good["log"]["size"] + 1))
        refused(lambda d, n=n: d["log"]["proofs"][n]["openings"][0].update(value="track:other"))
        refused(lambda d, n=n: d["log"]["proofs"][n].update(body="e30="))


def test_what_is_newer_than_the_checkpoint_is_said_to_be(world, tracks):
    with world.box.works.begin(OPERATOR) as work:
        release_service.lay_hold(work, scope="everything", scope_id=None, reason="Newer.")
    report = document(made(world, tracks["partner"]))
    assert len(report["log"]["unsigned"]) == 1
    assert check(report, world.box.signer.vkey)["unsigned"] == report["log"]["unsigned"]
