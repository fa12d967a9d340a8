"""Forms as data: what is read, what is refused and where; and what an answer must be."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.access.answers import (
    MAX_TYPED,
    as_typed,
    judge,
    matched,
    open_fields,
)
from stagerelease.access.formbook import SHIPPED_VERSION
from stagerelease.access.forms import (
    PURPOSES,
    Choice,
    Field,
    Fieldset,
    Form,
    Kind,
    document_of,
    form_sha256,
    parse_form,
    read_form,
    shipped_form,
)
from stagerelease.kernel.errors import DomainError, Invalid, TooLarge
from stagerelease.partners.duo import DUO_CODES

SHIPPED = {
    1: "b97cedcb21e73b45d443b18e6a4b56c3c8b92526bdeb262568101f433a95631b",
}
"""Digest of the shipped form by its version: change the form, and you give it the next number."""

GOOD: dict[str, Any] = {
    "name": "Ada Munk",
    "email": "ada@example.org",
    "organisation": "A lab",
    "role": "Reader",
    "purpose": "Telling machine text from human text, at length.",
    "category": "detection",
    "data_use": "GRU",
    "public_output": "paper",
    "storage": "On one encrypted machine that I alone can reach.",
    "no_sharing": "on",
    "report_misuse": "on",
}


def test_the_shipped_form_is_the_one_of_its_version():
    assert form_sha256(shipped_form()) == SHIPPED[SHIPPED_VERSION]
    assert [f.key for f in shipped_form().fieldsets] == [
        "who",
        "what_for",
        "safeguards",
        "checkpoints",
    ]


# --- reading ------------------------------------------------------------------------------------

WORDS = st.text("abc xyz…é", min_size=1, max_size=30).map(str.strip).filter(bool)
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True).filter(lambda k: k != "email")
CHOICES = st.lists(
    st.builds(Choice, WORDS, WORDS, st.just("")),
    min_size=2,
    max_size=4,
    unique_by=lambda c: c.value,
).map(tuple)


@st.composite
def fields(draw: st.DrawFn, key: str) -> Field:
    kind = draw(st.sampled_from(list(Kind)))
    extra: dict[str, Any] = {}
    if kind in (Kind.TEXT, Kind.LONG_TEXT):
        low = draw(st.integers(0, 20))
        extra = {"min_length": low, "max_length": draw(st.integers(low, 500))}
    elif kind in (Kind.CHOICE, Kind.CHOICES):
        extra = {"choices": draw(CHOICES)}
    elif kind is Kind.DUO_PURPOSE:
        codes = draw(st.lists(st.sampled_from(sorted(PURPOSES)), min_size=1, unique=True))
        extra = {"choices": tuple(Choice(c, f"{DUO_CODES[c].label} ({c})") for c in codes)}
    elif kind is Kind.DATE:
        extra = {"earliest": draw(st.none() | st.dates(max_value=date(2030, 1, 1)))}
    elif kind is Kind.URL:
        extra = {"max_length": 2000}
    return Field(key, draw(WORDS), kind, draw(st.just("") | WORDS), draw(st.booleans()), **extra)


@st.composite
def forms(draw: st.DrawFn) -> Form:
    keys = draw(st.lists(KEYS, max_size=6, unique=True))
    made = [draw(fields(key)) for key in keys]
    address = Field("email", "Address", Kind.EMAIL, required=True)
    return Form(
        "mine",
        draw(WORDS),
        (
            Fieldset("one", draw(WORDS), (address, *made[:3])),
            Fieldset("two", draw(WORDS), tuple(made[3:]), draw(st.just("") | WORDS)),
        ),
        draw(st.just("") | WORDS),
        draw(st.booleans()),
    )


@given(forms())
def test_a_form_is_read_back_as_it_was_written(form):
    assert read_form(document_of(form)) == form
    assert parse_form(json.dumps(document_of(form))) == form
    assert parse_form(yaml.safe_dump(document_of(form), allow_unicode=True)) == form


SOURCE = """\
form: mine
title: Mine
fieldsets:
  - key: who
    legend: Who
    fields:
      - key: email
        label: Address
        kind: email
        required: true
      - key: why
        label: Why
        kind: text
      - key: what
        label: What
        kind: choice
        choices:
          - {value: a, label: A}
          - {value: b, label: B}
"""


def test_the_form_to_break_is_whole():
    assert [f.key for f in parse_form(SOURCE).fields] == ["email", "why", "what"]


@pytest.mark.parametrize(
    ("old", "new", "field", "line"),
    [
        ("form: mine", "form: My form", "form", 1),
        ("title: Mine\n", "", "title", 1),
        ("title: Mine", "title: Mine\ncolour: red", "colour", 3),
        ("key: who", "key: Who!", "fieldsets.0.key", 4),
        ("legend: Who", "legend: ''", "fieldsets.0.legend", 5),
        ("kind: text", "kind: password", "fieldsets.0.fields.1.kind", 13),
        ("kind: text", "kind: text\n        pattern: x", "fieldsets.0.fields.1.pattern", 14),
        (
            "kind: text",
            "kind: text\n        max_length: 9999",
            "fieldsets.0.fields.1.max_length",
            14,
        ),
        ("kind: text", "kind: text\n        max_length: -1", "fieldsets.0.fields.1.max_length", 14),
        (
            "kind: text",
            "kind: text\n        max_length: true",
            "fieldsets.0.fields.1.max_length",
            14,
        ),
        (
            "kind: text",
            "kind: text\n        min_length: 9\n        max_length: 8",
            "fieldsets.0.fields.1.min_length",
            14,
        ),
        ("kind: text", "kind: text\n        required: 'yes'", "fieldsets.0.fields.1.required", 14),
        ("kind: text", "kind: date\n        earliest: soon", "fieldsets.0.fields.1.earliest", 14),
        (
            "kind: text",
            "kind: date\n        earliest: 2026-02-02\n        latest: 2026-02-01",
            "fieldsets.0.fields.1.earliest",
            14,
        ),
        (
            "kind: text",
            "kind: duo_purpose\n        choices: [XYZ]",
            "fieldsets.0.fields.1.choices",
            14,
        ),
        ("{value: b,", "{value: a,", "fieldsets.0.fields.2.choices", 17),
        ("          - {value: b, label: B}\n", "", "fieldsets.0.fields.2.choices", 17),
        ("key: why", "key: email", "fieldsets", 3),
        ("kind: email", "kind: text", "fieldsets", 3),
        ("required: true", "required: false", "fieldsets", 3),
        ("key: email", "key: mail", "fieldsets", 3),
    ],
)
def test_each_mistake_is_named_with_its_line(old, new, field, line):
    assert old in SOURCE
    with pytest.raises(Invalid) as refused:
        parse_form(SOURCE.replace(old, new, 1))
    found = {error.field: error.sentence for error in refused.value.fields}
    assert list(found) == [field]
    assert found[field].startswith(f"Line {line}: ")


@pytest.mark.parametrize(
    "odd", ["", "[]", "form", "a: &x 1\nb: *x", "{", "form: 2020-01-01", "x: !!python/object:os.a"]
)
def test_what_is_no_form_is_refused(odd):
    with pytest.raises(Invalid):
        parse_form(odd)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=4)
            | st.dictionaries(
                st.sampled_from(["form", "title", "fieldsets", "fields", "key", "kind"])
                | st.text(max_size=5),
                x,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_no_document_breaks_the_reader(document):
    with pytest.raises(Invalid):
        read_form(document)


# --- answers ------------------------------------------------------------------------------------


def test_good_answers_are_good_and_typed():
    good, wrong = judge(shipped_form(), GOOD)
    assert wrong == ()
    assert good["no_sharing"] is True
    assert "profile" not in good


@pytest.mark.parametrize("key", list(GOOD))
def test_every_required_answer_is_required(key):
    for missing in ({k: v for k, v in GOOD.items() if k != key}, GOOD | {key: "  "}):
        _, wrong = judge(shipped_form(), missing)
        assert [error.field for error in wrong] == [key]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "x" * 201),
        ("name", "Ada\nMunk"),
        ("name", "Ada\x07"),
        ("name", "Ada\u202eknuM"),
        ("name", ["Ada"]),
        ("name", True),
        ("email", "ada"),
        ("email", "ada@example"),
        ("email", "ada@example.org\nBcc: all@example.org"),
        ("email", "ada@@example.org"),
        ("email", "ada@example..org"),
        ("email", ".ada@example.org"),
        ("email", "<ada@example.org>"),
        ("email", '"a b"@example.org'),
        ("email", "ada@[127.0.0.1]"),
        ("email", "a" * 65 + "@example.org"),
        (
            "email",
            "a@" + "b" * 60 + "." + "c" * 60 + "." + "d" * 60 + "." + "e" * 60 + "." + "org" * 9,
        ),
        ("email", "ädä@example.org"),
        ("profile", "javascript:alert(1)"),
        ("profile", "//example.org"),
        ("profile", "https://"),
        ("profile", "https://user:pw@example.org/"),
        ("profile", "https://exa mple.org/"),
        ("profile", "https://[::1"),
        ("profile", "https://example.org/" + "x" * 2000),
        ("purpose", "short"),
        ("purpose", "x" * 10_000),
        ("purpose", "long enough, but \ufffd is in it"),
        ("category", "nonsense"),
        ("data_use", "XYZ"),
        ("ends_on", "tomorrow"),
        ("ends_on", "2026-13-01"),
        ("ends_on", "2026-01-01T00:00"),
        ("no_sharing", "perhaps"),
        ("no_sharing", False),
        ("also_wanted", ["gpt2-mini/none"]),
        ("also_wanted", True),
        ("unknown", "x"),
        ("__proto__", "x"),
    ],
)
def test_one_wrong_answer_is_named_alone(key, value):
    good, wrong = judge(shipped_form(), GOOD | {key: value}, family=["gpt2-mini/two"])
    assert [error.field for error in wrong] == [key]
    assert key not in good
    assert open_fields(shipped_form(), GOOD | {key: value}) in ((key,), ())


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("email", " Ada.Munk+x@Example.ORG ", "Ada.Munk+x@example.org"),
        ("name", "👩‍🔬 Ádá", "👩‍🔬 Ádá"),
        ("name", "<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("name", "'; DROP TABLE access_request; --", "'; DROP TABLE access_request; --"),
        ("name", "{{7*7}} ${7*7} %s", "{{7*7}} ${7*7} %s"),
        ("purpose", "One line,\nand another one.", "One line,\nand another one."),
        ("ends_on", "2026-12-31", "2026-12-31"),
        ("also_wanted", ["gpt2-mini/two", "gpt2-mini/two", " "], ["gpt2-mini/two"]),
        ("also_wanted", "gpt2-mini/two", ["gpt2-mini/two"]),
        (
            "profile",
            "https://orcid.org/0000-0002-1825-0097",
            "https://orcid.org/0000-0002-1825-0097",
        ),
    ],
)
def test_odd_and_good_answers_are_kept_as_they_are(key, value, kept):
    good, wrong = judge(shipped_form(), GOOD | {key: value}, family=["gpt2-mini/two"])
    assert wrong == ()
    assert good[key] == kept


@given(
    st.dictionaries(
        st.text(max_size=10),
        st.text(max_size=50)
        | st.booleans()
        | st.lists(st.text(max_size=9), max_size=3)
        | st.integers(),
        max_size=8,
    )
)
def test_nothing_typed_is_lost_or_breaks_the_judge(typed):
    kept = as_typed(typed)
    assert len(kept) <= len(typed)
    for key, value in typed.items():
        if isinstance(value, str) and key in kept and "\r" not in value:
            same = value.replace("\x00", "\ufffd")
            assert kept[key] == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in same)
    json.dumps(kept, ensure_ascii=False).encode()
    assert as_typed(kept) == kept
    _, wrong = judge(shipped_form(), kept)
    assert wrong


def test_a_line_break_and_a_control_character_are_told_apart():
    for text, words in (("a\nb", "one line"), ("a\tb", "one line"), ("a\x07b", "U+0007")):
        _, wrong = judge(shipped_form(), GOOD | {"name": text})
        assert words in wrong[0].sentence
    assert list(as_typed({"k" * 300: ""})) == ["k" * 200]


def test_more_than_any_form_asks_for_is_refused():
    assert MAX_TYPED == 20_000
    assert as_typed({"a": "x" * MAX_TYPED})
    assert len(as_typed({str(n): "" for n in range(100)})) == 100
    assert len(as_typed({str(n): "x" * MAX_TYPED for n in range(10)})) == 10
    for much in (
        {"a": "x" * (MAX_TYPED + 1)},
        {str(n): "x" for n in range(101)},
        {str(n): "x" * MAX_TYPED for n in range(11)},
    ):
        with pytest.raises(TooLarge):
            as_typed(much)
    for odd in ({"a": None}, {"a": {"b": "c"}}, {"a": [1]}, {"a": b"x"}):
        with pytest.raises(DomainError):
            as_typed(odd)


def test_names_that_fit_the_form_become_its_keys_and_others_stay():
    form = shipped_form()
    assert matched(form, {"PURPOSE": "p", "Full Name": "n", "Affiliation": "a"}) == {
        "purpose": "p",
        "name": "n",
        "Affiliation": "a",
    }
    both = {"PURPOSE": "p", "purpose": "again"}
    assert matched(form, both) == both
