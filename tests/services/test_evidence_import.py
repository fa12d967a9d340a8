"""Evidence from files: whole or not at all, with the place of every mistake."""

from __future__ import annotations

import csv
import io
import json
import time
from datetime import UTC, datetime

import pytest
from make_evidence import THEN, WEIGHTS
from make_release import database_url, leaves, staff, staffed, track

from stagerelease.evidence import service
from stagerelease.evidence.formats import MAX_ENTRIES
from stagerelease.evidence.importing import FORMATS
from stagerelease.kernel.errors import DomainError, Forbidden, Invalid, TooLarge

__all__ = ["database_url", "staff", "staffed", "track"]

ACCURACY = {
    "type": "detectability",
    "metric": "accuracy",
    "title": "Baseline, 1.5B, top-k 40",
    "subject_sha256": WEIGHTS,
    "source": "detection.md",
    "fact_status": "verified",
    "measured_at": "2019-05-03",
    "value": 92.69,
    "unit": "percent",
    "conditions": {
        "detector": "tfidf+logreg",
        "sampler": "k40",
        "text_length": 1024,
        "text_length_unit": "tokens",
        "base_rate": 0.5,
    },
}
FINDING = {
    "type": "misuse_monitoring",
    "metric": "finding",
    "title": "Watching",
    "subject_sha256": WEIGHTS,
    "source": "GPT-2: 1.5B Release",
    "fact_status": "verified",
    "measured_at": "2019-11-05",
    "verdict": "no_strong_evidence",
    "finding": "No strong evidence of misuse so far.",
}
CARD = """---
license: mit
model-index:
- name: gpt2-xl
  results:
  - task: {type: text-generation, name: Language modelling}
    dataset: {type: lambada, name: LAMBADA, split: test}
    metrics:
    - {type: perplexity, value: 8.63}
    - {type: accuracy, value: 63.24}
    source: {name: paper, url: "https://example.org/paper"}
  - dataset: {type: wikitext}
    metrics:
    - {type: ppl, value: "18.34"}
---
# A card
"""


def take(staff, format, text, who="mia", *, dry_run=False, **defaults):
    with staff.begin(who, dry_run=dry_run) as work:
        return service.import_evidence(
            work, format=format, text=text, defaults=service.Defaults(**defaults)
        )


def kept(staff):
    with staff.begin("aud", read_only=True) as work:
        return service.list_evidence(work)


def refused(staff, format, text, **defaults):
    """Return the refusal of a file, of which nothing may be kept."""
    with pytest.raises(Invalid) as caught:
        take(staff, format, text, **defaults)
    assert kept(staff) == []
    return caught.value


def as_csv(*rows):
    """Return rows as CSV; conditions become their columns."""
    flat = [
        {k: v for k, v in row.items() if k != "conditions"}
        | {f"condition.{k}": v for k, v in row.get("conditions", {}).items()}
        for row in rows
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, sorted({name for row in flat for name in row}))
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


# --- what comes in -------------------------------------------------------------------------------


def test_json_csv_and_the_same_words_come_to_the_same(staff, track):
    one, two = take(staff, "json", json.dumps({"evidence": [ACCURACY, FINDING]}))
    three, four = take(staff, "csv", "\ufeff" + as_csv(ACCURACY, FINDING))
    for left, right in ((one, three), (two, four)):
        for name in ("type", "metric", "value", "unit", "conditions", "verdict", "measured_at"):
            assert getattr(left, name) == getattr(right, name)
    assert (one.state, one.conditions["sampler"]) == ("draft", "top-k 40")
    assert one.measured_at == datetime(2019, 5, 3, tzinfo=UTC)
    assert (two.value, two.verdict) == (None, "no_strong_evidence")
    assert len(kept(staff)) == 4


def test_a_dry_run_shows_what_would_come(works, staff, track):
    before = len(leaves(works))
    rows = take(staff, "json", json.dumps([ACCURACY]), dry_run=True)
    assert rows[0].title == ACCURACY["title"]
    assert kept(staff) == []
    assert len(leaves(works)) == before


def test_a_model_cards_results_become_drafts(staff, track):
    rows = take(
        staff, "model-index", CARD, subject_sha256=WEIGHTS, measured_at=THEN, unit="percent"
    )
    assert [(r.metric, r.value, r.unit) for r in rows] == [
        ("perplexity", 8.63, "perplexity"),
        ("accuracy", 63.24, "percent"),
        ("perplexity", 18.34, "perplexity"),
    ]
    assert rows[0].conditions == {
        "dataset": "LAMBADA",
        "task": "Language modelling",
        "split": "test",
    }
    assert rows[0].source == "https://example.org/paper"
    assert rows[2].source == "model card of gpt2-xl"
    assert {r.fact_status for r in rows} == {"reported"}
    assert rows[0].title == "perplexity on LAMBADA (gpt2-xl)"


def test_a_share_in_a_card_needs_its_unit(staff, track):
    error = refused(staff, "model-index", CARD, subject_sha256=WEIGHTS, measured_at=THEN)
    assert error.reason == "import.unit"
    fraction = CARD.replace("63.24", "0.6324")
    rows = take(
        staff, "model-index", fraction, subject_sha256=WEIGHTS, measured_at=THEN, unit="fraction"
    )
    assert (rows[1].value, rows[1].unit) == (63.24, "percent")


def test_one_piece_may_be_submitted_at_once(staff, track):
    with staff.begin("mia") as work:
        row = service.submit_text(work, text=json.dumps({**FINDING, "authors": ["rae"]}))
        draft = service.submit_text(work, text=json.dumps(ACCURACY), as_draft=True)
        with pytest.raises(Invalid):
            service.submit_text(work, text="[]")
        page = service.show_evidence(work, row.id)
    assert (row.state, draft.state) == ("submitted", "draft")
    assert set(page.authors) == {staff.id("mia"), staff.id("rae")}


def test_who_submits_no_evidence_imports_none(staff, track):
    with pytest.raises(Forbidden):
        take(staff, "json", json.dumps([FINDING]), who="aud")


# --- what does not -------------------------------------------------------------------------------


def test_one_wrong_entry_and_nothing_comes(staff, track):
    wrong = {**ACCURACY, "unit": "seconds", "conditions": {}}
    error = refused(staff, "json", json.dumps([FINDING, wrong, {**FINDING, "value": 3}]))
    fields = {f.field for f in error.fields}
    assert {"entry 2.unit", "entry 2.conditions.sampler", "entry 3.value"} <= fields
    assert not any(name.startswith("entry 1") for name in fields)
    assert error.sentence.startswith("Nothing was imported.")


def test_csv_mistakes_have_their_line(staff, track):
    text = as_csv(FINDING, {**FINDING, "verdict": "awful"})
    assert refused(staff, "csv", text).fields[0].field == "line 3.verdict"
    broken = as_csv({**FINDING, "finding": 'two\nlines, and "quotes"'}, {**ACCURACY, "value": "9x"})
    assert "line 4: value is a number" in refused(staff, "csv", broken).sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names each column once"),
        ("type,colour\nx,y\n", "line 1: there is no column 'colour'"),
        ("type,type\nx,y\n", "names each column once"),
        ("type,metric\nbenefit\n", "line 2: 1 cells"),
        ("type,metric\nbenefit,users,1\n", "line 2: 3 cells"),
        ('type,metric\n"benefit,users\n', "unexpected end of data"),
        ("type,n\nbenefit,1.5\n", "line 2: n is a number"),
        ("type,n\nbenefit,\u0661\n", "line 2: n is a number"),
        ("type,value\nbenefit,1_000\n", "line 2: value is a number"),
        ("type,value\nbenefit,٣\n", "line 2: value is a number"),
        ("type,public\nbenefit,perhaps\n", "line 2: public is true or false"),
        ("type,value\nbenefit,nan\n", "line 2"),
        ("type\n", "no evidence"),
        ("type,metric\n\x00,users\n", "line"),
        ("x" * 200_000, "field larger than field limit"),
        ("type\n" + "x" * 200_000 + "\n", "field larger than field limit"),
    ],
)
def test_csv_that_is_none_is_refused_with_its_line(staff, track, text, said):
    error = refused(staff, "csv", text)
    assert said in error.sentence or said in str([f.field for f in error.fields])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Line 1, column 1"),
        ("[\n{\n]", "Line 3, column 1"),
        ("7", "is a list of objects"),
        ("[7]", "Entry 1 is no object"),
        ("[]", "no evidence"),
        ('[{"type": "benefit", "type": "benefit"}]', "the name 'type' is there twice"),
        ('[{"value": NaN}]', "NaN is no number"),
        ('[{"value": Infinity}]', "Infinity is no number"),
        ("[" * 100_000, "cannot be read"),
        ('[{"value": ' + "9" * 5000 + "}]", "cannot be read"),
        ('[{"colour": 1}]', "There is no field 'colour'"),
        ('[{"\\ud800": 1}]', "There is no field"),
        ('[{"title": {}}]', "title is text"),
        ('[{"conditions": []}]', "conditions is an object"),
        ('[{"authors": "rae"}]', "authors is a list of handles"),
        ('[{"n": 1.5}]', "n is a whole number"),
        ('[{"public": "yes"}]', "public is true or false"),
        ('[{"measured_at": "3 May"}]', "is no date"),
        ('[{"measured_at": "2019-05-03T12:00"}]', "which zone"),
        ('[{"measured_at": 20190503}]', "measured_at is a date"),
        ("[{}]", "measured_at is needed"),
        (
            '[{"interval_low": 1, "measured_at": "2019-05-03"}]',
            "An interval has both ends",
        ),
    ],
)
def test_json_that_is_none_is_refused_with_its_place(staff, track, text, said):
    assert said in refused(staff, "json", text).sentence


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# A card", "no metadata block"),
        ("---\nlicense: mit\n# no end", "no metadata block"),
        ("---\n- a list\n---\n", "is no mapping"),
        ("---\nlicense: mit\n---\n", "no model-index"),
        ("---\na: [1\n---\n", "no YAML, line "),
        ("---\na: !!python/object/apply:os.system [id]\n---\n", "is no YAML"),
        ("---\nmodel-index: [7]\n---\n", "no list of results"),
        ("---\nmodel-index: [{results: [7]}]\n---\n", "no list of metrics"),
        ("---\nmodel-index: [{results: [{metrics: []}]}]\n---\n", "names no dataset"),
        (CARD.replace("perplexity", "vibes"), "no metric of zero_shot_eval is called 'vibes'"),
        (CARD.replace("8.63", "good"), "is no number"),
        (CARD.replace("8.63", ".nan"), "finite"),
        (CARD.replace("8.63", "-1"), "at least 1"),
        (CARD.replace("8.63", "2019-05-03"), "is no number"),
        (f"---\n{BOMB}model-index: *k\n---\n", "anchors and aliases are not read"),
    ],
)
def test_a_card_that_says_nothing_is_refused(staff, track, text, said):
    began = time.monotonic()
    error = refused(
        staff, "model-index", text, subject_sha256=WEIGHTS, measured_at=THEN, unit="percent"
    )
    assert said in error.sentence
    assert time.monotonic() - began < 5


def test_too_much_is_refused(staff, track):
    many = "type\n" + "benefit\n" * (MAX_ENTRIES + 1)
    for format, text in (
        ("csv", many),
        ("json", "[" + ",".join(["{}"] * (MAX_ENTRIES + 1)) + "]"),
        ("json", " " * 5_000_001),
        ("model-index", "---\n" + "a: 1\n" * 60_000 + "---\n"),
    ):
        with pytest.raises(TooLarge):
            take(staff, format, text)
    assert kept(staff) == []


def test_another_format_is_refused(staff, track):
    assert refused(staff, "xlsx", "x").fields[0].field == "format"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "text", ["\x00", "\ud800", "<svg/onload=x>", "=cmd|' /C calc'!A0", "\u202e", "[[[[", '"', "---"]
)
def test_hostile_files_are_refused_in_words(staff, track, format, text):
    with pytest.raises(DomainError) as caught:
        take(staff, format, text)
    assert caught.value.sentence
    assert kept(staff) == []
