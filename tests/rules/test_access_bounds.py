"""Every bound of forms, answers and requests, from both sides: at it, and one beyond."""

from __future__ import annotations

import copy
from datetime import date, timedelta
from typing import Any

import pytest

from stagerelease.access import abuse, rules
from stagerelease.access.answers import judge
from stagerelease.access.forms import Choice, Field, Fieldset, Form, Kind, read_form
from stagerelease.kernel.errors import Invalid

DOCUMENT: dict[str, Any] = {
    "form": "mine",
    "title": "Mine",
    "intro": "Words.",
    "fieldsets": [
        {
            "key": "who",
            "legend": "Who you are",
            "help": "Help.",
            "fields": [
                {"key": "email", "label": "Address", "kind": "email", "required": True},
                {"key": "short", "label": "Short", "kind": "text", "help": "Help."},
                {"key": "long", "label": "Long", "kind": "long_text"},
                {
                    "key": "one",
                    "label": "One",
                    "kind": "choice",
                    "choices": [
                        {"value": "a", "label": "A", "help": "Help."},
                        {"value": "b", "label": "B"},
                    ],
                },
            ],
        }
    ],
}
FIELD = "fieldsets.0.fields"
CHOICE = f"{FIELD}.3.choices.0"


def put(path: str, value: object, document: dict[str, Any] = DOCUMENT) -> dict[str, Any]:
    """Return the document with another value at a path; None takes the key away."""
    changed = copy.deepcopy(document)
    *way, last = path.split(".")
    place: Any = changed
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return changed


def wrong(document: dict[str, Any]) -> set[str]:
    """Return the paths of what is wrong with a form."""
    try:
        read_form(document)
    except Invalid as refused:
        return {error.field for error in refused.fields}
    return set()


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("title", 120),
        ("intro", 4000),
        ("fieldsets.0.legend", 200),
        ("fieldsets.0.help", 1000),
        (f"{FIELD}.1.label", 300),
        (f"{FIELD}.1.help", 1000),
        (f"{CHOICE}.value", 100),
        (f"{CHOICE}.label", 300),
        (f"{CHOICE}.help", 500),
    ],
)
def test_words_are_as_long_as_they_may_be_and_no_longer(path, limit):
    assert wrong(DOCUMENT) == set()
    assert wrong(put(path, "x" * limit)) == set()
    assert wrong(put(path, "x" * (limit + 1))) == {path}


@pytest.mark.parametrize(
    "path",
    [
        *("form", "title", "fieldsets.0.key", "fieldsets.0.legend"),
        *(f"{FIELD}.1.key", f"{FIELD}.1.label", f"{CHOICE}.value", f"{CHOICE}.label"),
    ],
)
def test_what_is_required_is_missed(path):
    assert path in wrong(put(path, None))


@pytest.mark.parametrize("path", ["intro", "fieldsets.0.help", f"{FIELD}.1.help", f"{CHOICE}.help"])
def test_what_is_not_required_is_not(path):
    assert wrong(put(path, None)) == set()


@pytest.mark.parametrize(
    ("which", "key", "most"),
    [(1, "max_length", 500), (1, "min_length", 500), (2, "max_length", 10_000)],
)
def test_lengths_are_within_what_the_kind_allows(which, key, most):
    path = f"{FIELD}.{which}.{key}"
    assert wrong(put(path, most)) == set()
    for odd in (most + 1, -1, True, "5"):
        assert path in wrong(put(path, odd)), odd
    assert wrong(put(path, 0)) == set()


def test_there_are_so_many_parts_and_no_more():
    def sets(count: int) -> list[dict[str, Any]]:
        first = DOCUMENT["fieldsets"][0]
        more = [{"key": f"s{n}", "legend": "L", "fields": []} for n in range(count - 1)]
        return [first, *more]

    assert wrong(put("fieldsets", sets(12))) == set()
    assert wrong(put("fieldsets", sets(13))) == {"fieldsets"}
    email = DOCUMENT["fieldsets"][0]["fields"][0]
    texts = [{"key": f"k{n}", "label": "L", "kind": "text"} for n in range(40)]
    assert wrong(put(FIELD, [email, *texts[:39]])) == set()
    assert wrong(put(FIELD, [email, *texts])) != set()
    choices = [{"value": str(n), "label": "L"} for n in range(61)]
    assert wrong(put(f"{FIELD}.3.choices", choices[:60])) == set()
    assert wrong(put(f"{FIELD}.3.choices", choices)) != set()
    assert wrong(put(f"{FIELD}.3.choices", choices[:2])) == set()
    assert wrong(put(f"{FIELD}.3.choices", choices[:1])) != set()


def form_of(*fields: Field) -> Form:
    return Form("f", "F", (Fieldset("s", "S", fields),))


DAYS = Field("d", "D", Kind.DATE, earliest=date(2026, 1, 1), latest=date(2026, 12, 31))


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (Field("d", "D", Kind.TEXT, max_length=5), "x" * 5, "x" * 6),
        (Field("d", "D", Kind.LONG_TEXT, max_length=5), "a\nb\tc", "a\nb\tcd"),
        (Field("d", "D", Kind.TEXT, min_length=5), "x" * 5, "x" * 4),
        (Field("d", "D", Kind.TEXT), "a b", "a\nb"),
        (DAYS, "2026-01-01", "2025-12-31"),
        (DAYS, "2026-12-31", "2027-01-01"),
        (
            Field("d", "D", Kind.URL, max_length=30),
            "https://example.org/" + "x" * 10,
            "https://example.org/" + "x" * 11,
        ),
        (Field("d", "D", Kind.URL), "https://example.org/a", "https://example.org/a\nb"),
        (
            Field("d", "D", Kind.EMAIL),
            "x" * 64 + "@example.org",
            "x" * 65 + "@example.org",
        ),
        (
            Field("d", "D", Kind.EMAIL),
            "x@" + ".".join(["a" * 61] * 4) + ".orga",  # 254 characters
            "x@" + ".".join(["a" * 61] * 4) + ".organ",
        ),
        (Field("d", "D", Kind.CHOICE, choices=(Choice("a", "A"),)), "a", "b"),
        (Field("d", "D", Kind.CHOICES, choices=(Choice("a", "A"),)), ["a"], ["a", "b"]),
        (Field("d", "D", Kind.CHECKBOX), "on", "maybe"),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Field) else None,
)
def test_an_answer_at_its_bound_is_good_and_one_beyond_is_not(field, good, bad):
    kept, errors = judge(form_of(field), {"d": good})
    assert (set(kept), errors) == ({"d"}, ())
    kept, errors = judge(form_of(field), {"d": bad})
    assert (kept, [e.field for e in errors]) == ({}, ["d"])


def test_an_empty_answer_is_left_out_and_an_unticked_box_is_an_answer():
    fields = (
        Field("text", "T", Kind.TEXT),
        Field("many", "M", Kind.CHOICES, choices=(Choice("a", "A"),)),
        Field("tick", "X", Kind.CHECKBOX),
    )
    assert judge(form_of(*fields), {"text": " ", "many": [" "], "tick": "off"}) == (
        {"tick": False},
        (),
    )
    assert judge(form_of(*fields), {"tick": True}) == ({"tick": True}, ())


def test_times_are_those_that_applicants_were_told():
    assert timedelta(days=30) == rules.DRAFT_KEPT
    assert timedelta(days=7) == rules.CONFIRM_WITHIN
    assert timedelta(minutes=2) == rules.MAIL_AGAIN_AFTER
    assert timedelta(days=90) == rules.SUBMITTED_FOR
    assert timedelta(days=30) == rules.RETURNED_FOR
    assert timedelta(days=90) == rules.DECISION_WINDOW
    assert {what: (n.address, n.network, n.everybody) for what, n in abuse.LIMITS.items()} == {
        "draft": (None, 20, 2_000),
        "mail": (3, 20, 1_000),
        "save": (None, 600, 50_000),
    }
