"""The form of evidence: what the API takes it takes, and what was typed is never lost."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from browsing import HOSTILE, browser, draft_evidence
from stagerelease.catalog import queries as catalog
from stagerelease.evidence import queries, schema, service
from stagerelease.evidence.kinds import TYPES
from stagerelease.http.pages.evidence_form import KINDS

NOT_TYPED = {"type", "metric", "draft"}  # chosen before, or the button that is pressed
FIGURE = {
    "what": "detectability.accuracy",
    "title": "A fine-tuned detector",
    "value": "91.2",
    "unit": "percent",
    "conditions.detector": "RoBERTa-large",
    "conditions.sampler": "top-k 40",
    "conditions.text_length": "256",
    "conditions.text_length_unit": "tokens",
    "conditions.base_rate": "0.5",
    "source": "Run 12",
    "fact_status": "verified",
}


def fields(text):
    """Return each field of the form that is shown, and what is in it, as it would be sent."""
    body = re.search(r'<form method="post" action="/me/evidence.*?</form>', text, re.S).group()
    found = dict(
        re.findall(
            r'<input type="(?:text|date|hidden)"[^>]* name="([^"]+)"[^>]* value="([^"]*)"', body
        )
    )
    found |= dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', body))
    found |= dict(
        re.findall(r'<textarea id="[^"]*" name="([^"]+)"[^>]*>\n(.*?)</textarea>', body, re.S)
    )
    for name, options in re.findall(
        r'<select id="[^"]*" name="([^"]+)"[^>]*>(.*?)</select>', body, re.S
    ):
        values = re.findall(r'<option value="([^"]*)"( selected)?', options)
        found[name] = next((v for v, on in values if on), values[0][0] if values else "")
    ticked = re.findall(r'<input type="checkbox"[^>]* name="([^"]+)" value="on"( checked)?', body)
    found |= {name: "on" if on else "" for name, on in ticked}
    return {name: html.unescape(value) for name, value in found.items()}


def subject(world, who="researcher"):
    with world.box.works.begin(world.actor(who)) as work:
        variant = catalog.load_variant(work, world.repos[who])
        return catalog.load_revision(work, str(catalog.find_ref(work, variant.id, "main")))


def typed(world, **more):
    day = f"{world.clock.now() - timedelta(days=2):%Y-%m-%d}"
    return FIGURE | {"subject_sha256": subject(world).manifest_sha256, "measured_at": day} | more


def kept(world, evidence_id):
    with world.box.works.begin(read_only=True) as work:
        return queries.load_evidence(work, evidence_id)


def test_the_form_of_each_kind_asks_for_all_that_the_api_takes(world):
    assert len(KINDS) == sum(len(one.metrics) + 1 for one in TYPES.values())
    with browser(world, "reviewer_a") as rita:
        for kind in KINDS.values():
            described = schema.schema_of(kind.type)
            way = next(
                way["properties"]
                for way in described["oneOf"]
                if way["properties"]["metric"]["const"] == kind.metric
            )
            taken = ({*described["properties"], *way} - NOT_TYPED) | {
                f"{group}.{name}"
                for group in ("conditions", "companions")
                for name in way.get(group, {}).get("properties", {})
            }
            if kind.figures is None:
                taken.discard("unit")  # of a finding it can be one word alone
            shown = fields(rita.get(f"/me/evidence/new?what={kind.key}").text)
            assert taken - {"conditions", "companions"} <= set(shown), kind.key
            needed = {f"conditions.{name}" for name in way["conditions"]["required"]}
            assert needed == {one.key for one in kind.conditions if one.required}, kind.key


def test_everything_typed_is_kept_by_the_service(world):
    file = next(f for f in files_of(world) if f.kind == "weights")
    sent = typed(
        world,
        subject_file=file.sha256,
        n="5000",
        interval_low="90.1",
        interval_high="92.3",
        interval_level="95",
        valid_until=f"{world.clock.now() + timedelta(days=90):%Y-%m-%d}",
        finding="It finds nine of ten.",
        caveat="One detector.",
        author_name="Lab A",
        public="on",
        **{"companions.sensitivity": "93", "companions.specificity": "89.5"},
    )
    with browser(world, "researcher") as ada:
        got = ada.post("/me/evidence", data=sent)
        assert got.status_code == 303
        here = got.headers["location"]
        assert "89.5" in ada.get(here).text
        again = fields(ada.get(f"{here}/edit").text)
    row = kept(world, here.rpartition("/")[2])
    assert dict(row.companions) == {"sensitivity": 93.0, "specificity": 89.5}
    assert (row.subject_sha256, row.subject_kind) == (file.sha256, "file")
    assert (row.n, row.interval_low, row.interval_high, row.interval_level) == (
        5000,
        90.1,
        92.3,
        95,
    )
    assert row.conditions["base_rate"] == 0.5
    assert (row.public, row.author_name, row.finding) == (True, "Lab A", "It finds nine of ten.")
    for name in set(sent) - {"subject_sha256"}:
        assert again[name] == sent[name], name


def files_of(world):
    with world.box.works.begin(read_only=True) as work:
        return catalog.files(work, subject(world).id)


def test_a_draft_is_opened_changed_and_handed_in(world):
    draft = draft_evidence(world)
    before = kept(world, draft)
    with browser(world, "researcher") as ada:
        assert f"/me/evidence/{draft}/edit" in ada.get(f"/me/evidence/{draft}").text
        form = fields(ada.get(f"/me/evidence/{draft}/edit").text)
        assert ada.post(f"/me/evidence/{draft}/edit", data=form).status_code == 303
        assert content(kept(world, draft)) == content(before)  # to the second
        form = fields(ada.get(f"/me/evidence/{draft}/edit").text)
        changed = form | {"companions.specificity": "88", "value": "90", "public": "on"}
        got = ada.post(f"/me/evidence/{draft}/edit", data=changed)
        assert got.headers["location"] == f"/me/evidence/{draft}?done=saved#done"
        row = kept(world, draft)
        assert (row.value, dict(row.companions), row.public) == (90, {"specificity": 88}, True)
        assert ada.post(f"/me/evidence/{draft}/submit").status_code == 303
        assert ada.get(f"/me/evidence/{draft}/edit").status_code == 409
        late = ada.post(f"/me/evidence/{draft}/edit", data=changed | {"title": "Too late to say"})
        assert late.status_code == 409
        assert "Too late to say" in late.text  # and yet it is handed back
    assert kept(world, draft).title == "A fine-tuned detector"


def content(row):
    return service.content_sha256(row)


def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(world):
    draft = draft_evidence(world)
    with browser(world, "researcher") as ada:
        for where in ("/me/evidence", f"/me/evidence/{draft}/edit"):
            sent = typed(
                world,
                title="",
                value="91,2",
                n="many",
                interval_low="95",
                interval_high="96",
                interval_level="all",
                caveat=HOSTILE.replace("\u0000", ""),
                **{"conditions.sampler": "by <b>hand</b>", "companions.sensitivity": "130"},
            )
            got = ada.post(where, data=sent)
            assert got.status_code == 422
            wrong = set(re.findall(r'class="wrong" id="e-([^"]+)"', got.text))
            assert wrong >= {
                *("title", "value", "n", "interval_level"),
                *("conditions.sampler", "companions.sensitivity"),
            }
            assert {f"#f-{one}" for one in wrong} <= set(re.findall(r'href="([^"]+)"', got.text))
            assert got.text.count("Give a number, such as 91.2") == 6  # three fields, told twice
            assert "<script>alert" not in got.text
            shown = fields(got.text)
            assert {k: shown[k] for k in sent} == sent
    assert kept(world, draft).value == 91.2


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"subject_sha256": ""}, "subject_sha256"),
        ({"fact_status": ""}, "fact_status"),
        ({"measured_at": ""}, "measured_at"),
        ({"measured_at": "", "title": ""}, "title"),  # with everything else that is wrong
        ({"measured_at": "yesterday"}, "measured_at"),
        ({"valid_until": "2001-01-01"}, "valid_until"),
        ({"interval_low": "90"}, "interval_high"),
        ({"interval_low": "1", "interval_high": "2", "interval_level": "95"}, "interval_low"),
        ({"subject_file": "ab"}, "subject_file"),
        ({"authors": "nobody-of-that-name"}, "authors"),
        ({"supersedes": "evd_none"}, "supersedes"),
        ({"companions.sensitivity": "nan"}, "companions.sensitivity"),
        ({"conditions.base_rate": "50"}, "conditions.base_rate"),
        ({"conditions.text_length": "long"}, "conditions.text_length"),
        ({"n": "1.5"}, "n"),
        ({"n": "inf"}, "n"),
    ],
)
def test_each_fault_has_its_field(world, more, wrong):
    with browser(world, "researcher") as ada:
        got = ada.post("/me/evidence", data=typed(world, **more))
    assert got.status_code == 422
    assert f'id="e-{wrong}"' in got.text


def test_what_one_does_not_hold_is_refused_with_everything_kept(world):
    stranger = typed(world, subject_file="0" * 64, title="Of another model")
    with browser(world, "researcher") as ada:
        got = ada.post("/me/evidence", data=stranger)
    assert got.status_code == 403
    assert "You hold no active grant" in got.text
    assert fields(got.text)["title"] == "Of another model"


def test_another_kind_has_other_fields_and_loses_none_of_what_was_typed(world):
    with browser(world, "researcher") as ada:
        sent = typed(world, show="fields", other="benefit.finding")
        got = ada.post("/me/evidence", data=sent)
        assert got.status_code == 200
        shown = fields(got.text)
        assert {"verdict", "conditions.audience"} <= set(shown)
        assert shown["what"] == "benefit.finding"
        assert shown["title"] == sent["title"]
        assert 'id="f-conditions.detector"' not in got.text
        back = ada.post(
            "/me/evidence", data=shown | {"show": "fields", "other": "detectability.accuracy"}
        )
        again = fields(back.text)
        assert {k: again[k] for k in FIGURE} == FIGURE
        done = shown | {"verdict": "some_benefit", "finding": "It is used."}
        here = ada.post("/me/evidence", data=done).headers["location"]
        changed = fields(ada.get(f"{here}/edit").text)
        assert changed["verdict"] == "some_benefit"
        more = changed | {"show": "fields", "other": "benefit.users"}
        more = fields(ada.post(f"{here}/edit", data=more).text)
        assert more["verdict"] == "some_benefit"  # carried along, unseen
        more |= {"value": "40", "unit": "count", "conditions.audience": "Teachers"}
        more |= {"conditions.counted_from": "A list"}
        assert ada.post(f"{here}/edit", data=more).status_code == 303
    row = kept(world, here.rpartition("/")[2])
    assert (row.metric, row.value, row.verdict) == ("users", 40, None)


def test_two_authors_do_not_write_over_each_other_unread(world):
    draft = draft_evidence(world)
    with browser(world, "researcher") as ada:
        mine = fields(ada.get(f"/me/evidence/{draft}/edit").text)
        other = mine | {"title": "Said in another window"}
        assert ada.post(f"/me/evidence/{draft}/edit", data=other).status_code == 303
        got = ada.post(f"/me/evidence/{draft}/edit", data=mine | {"title": "Said in this one"})
        assert got.status_code == 409
        assert kept(world, draft).title == "Said in another window"
        shown = fields(got.text)
        assert shown["title"] == "Said in this one"
        assert ada.post(f"/me/evidence/{draft}/edit", data=shown).status_code == 303
    assert kept(world, draft).title == "Said in this one"


def test_staff_write_about_any_track_and_name_whose_it_is(world):
    with browser(world, "reviewer_a") as rita:
        assert "/me/evidence#new" in rita.get("/staff/evidence").text
        form = fields(rita.get("/me/evidence/new?what=detectability.accuracy").text)
        assert (form["subject_sha256"], form["fact_status"]) == ("", "")  # nothing is meant yet
        page = rita.get("/me/evidence/new?what=detectability.accuracy").text
        mine = re.search(r'<option value="([0-9a-f]{64})">demo/', page)
        sent = typed(world, subject_sha256=mine.group(1), authors="demo-reviewer-b, demo-owner")
        here = rita.post("/me/evidence", data=sent).headers["location"]
        again = fields(rita.get(f"{here}/edit").text)
        assert again["authors"] == "demo-owner, demo-reviewer-b"
        listed = rita.get(f"/staff{here.removeprefix('/me')}").text
        assert f'href="{here}"' in listed
    with browser(world, "reviewer_b") as ben:  # who shares the draft, and changes it
        assert fields(ben.get(f"{here}/edit").text)["authors"] == "demo-owner, demo-reviewer-a"
    with browser(world, "security") as other:
        assert other.get(f"{here}/edit").status_code == 404
        assert other.post(f"{here}/edit", data=again).status_code == 404


def test_newer_evidence_is_written_in_place_of_older(world):
    old = draft_evidence(world)
    with world.box.works.begin(world.actor("researcher")) as work:
        service.submit(work, old)
    with world.box.works.begin(world.actor("reviewer_a")) as work:
        service.accept(work, old)
    with browser(world, "researcher") as ada:
        page = ada.get("/me/evidence/new?what=detectability.auroc").text
        assert f'<option value="{old}"' in page
        assert f'<option value="{old}"' not in ada.get("/me/evidence/new?what=benefit.users").text
        here = ada.post("/me/evidence", data=typed(world, supersedes=old)).headers["location"]
        assert fields(ada.get(f"{here}/edit").text)["supersedes"] == old
    assert kept(world, here.rpartition("/")[2]).supersedes_id == old


def test_who_may_not_and_what_is_no_kind(world):
    with browser(world, "outsider") as none:
        assert none.get("/me/evidence/new?what=benefit.users").status_code == 403
        assert none.post("/me/evidence", data=typed(world)).status_code == 403
        for what in ("", "x", "benefit", "benefit.users.x", "finding.benefit"):
            assert none.get("/me/evidence/new", params={"what": what}).status_code == 422
            assert none.post("/me/evidence", data={"what": what}).status_code == 422


def test_a_draft_the_api_wrote_keeps_its_instants_and_its_organisation(world):
    with world.box.works.begin(world.actor("partner")) as work:
        variant = catalog.load_variant(work, world.repos["partner"])
        revision = catalog.load_revision(work, str(catalog.find_ref(work, variant.id, "main")))
        new = service.NewEvidence(
            type="replication",
            metric="cost",
            title="What it took",
            subject_sha256=revision.manifest_sha256,
            source="Run 3",
            fact_status="computed",
            measured_at=work.now - timedelta(days=1, seconds=7),
            valid_until=work.now + timedelta(days=1, seconds=7),
            value=49_999.95,
            unit="US dollars",
            conditions={"developer": "Lab <B>"},
        )
        row = service.draft(work, new)
        edited = replace(new, title="What it took us")
    with browser(world, "partner") as pat:
        form = fields(pat.get(f"/me/evidence/{row.id}/edit").text)
        assert form["value"] == "49999.95"
        form["title"] = edited.title
        assert pat.post(f"/me/evidence/{row.id}/edit", data=form).status_code == 303
    after = kept(world, row.id)
    assert after.organisation_id == row.organisation_id is not None
    assert content(after) == content(replace(row, title=edited.title))
