"""Texts that strangers wrote cost no more than their length: headings, metadata, forms."""

from __future__ import annotations

import re
import time

import pytest
import yaml

from stagerelease.access.forms import parse_form
from stagerelease.evidence.cards import front_matter
from stagerelease.http.pages.card import _card
from stagerelease.http.pages.markdown import render_text, split_front
from stagerelease.kernel.errors import Invalid
from stagerelease.kernel.plain_yaml import DEEPEST, MOST_NODES, load_plain

LAUGHS = "\n".join(
    ['a: &a ["lol","lol","lol","lol","lol","lol","lol","lol","lol"]']
    + [
        f"{c}: &{c} [{','.join(['*' + p] * 9)}]"
        for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    ]
)


def ids_of(text: str) -> list[str]:
    return re.findall(r'id="([^"]*)"', render_text(text, rewrite=lambda href: href))


def test_equal_headings_are_numbered_and_never_alike():
    assert ids_of("# A b\n# A b\n# A b-2\n# A b\n# !\n# !\n") == [
        *("s-a-b", "s-a-b-2", "s-a-b-2-2", "s-a-b-3", "s-", "s--2")
    ]
    odd = "".join(f"# a-{n % 7}\n# a\n" for n in range(200))
    assert len(set(ids_of(odd))) == 400


def test_many_equal_headings_are_shown_at_once():
    began = time.monotonic()
    assert len(set(ids_of("# a\n" * 12_000))) == 12_000
    assert time.monotonic() - began < 10  # it was minutes


@pytest.mark.parametrize(
    "front",
    [
        LAUGHS + "\nlicense: *i",
        "license: &x mit\ntags: *x",
        "license: !!int x",
        "license: !!python/object:os.system x",
        "? [a]\n: b",
        "license: " + "[" * 9_000,
        "license: " + "9" * 5_000,
        "license: \x01",
    ],
    ids=range(8),
)
def test_a_card_whose_facts_cannot_be_read_is_shown_without_them(front):
    said, shown = _card(f"---\n{front}\n---\n# Title\n\nText\n")
    assert said == {}
    assert "Text" in shown


def test_facts_are_plain_words():
    front = "license: 2023-13-45\ntags: [a, 1, true, [x], {y: z}, b]\npipeline_tag: {a: b}"
    said, _ = _card(f"---\n{front}\n---\n# x\n")
    assert said == {"license": "2023-13-45", "tags": "a, 1, True, b"}
    assert split_front("---\nmade: 2023-01-02\n---\nx")[0] == {"made": "2023-01-02"}


@pytest.mark.parametrize(
    "source",
    [
        LAUGHS,
        "x: [" + "a," * MOST_NODES + "]",
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        "- " * 100_000,
        "? " * 100_000,
    ],
    ids=range(5),
)
def test_yaml_that_multiplies_or_has_no_end_is_refused_at_once(source):
    began = time.monotonic()
    with pytest.raises(yaml.YAMLError):
        load_plain(source)
    assert time.monotonic() - began < 2
    with pytest.raises(Invalid):
        front_matter(f"---\n{source}\n---\n")


def test_as_much_as_anybody_writes_is_read():
    assert load_plain("{a: [1, 2.5, yes, null, text], b: {c: d}}") == {
        "a": [1, 2.5, True, None, "text"],
        "b": {"c": "d"},
    }
    assert load_plain("[" * DEEPEST + "]" * DEEPEST) is not None


def test_a_form_of_too_many_values_is_refused_before_it_is_built():
    began = time.monotonic()
    with pytest.raises(Invalid) as refused:
        parse_form("x: [" + "a," * 32_000 + "]")
    assert refused.value.reason == "form.yaml"
    assert time.monotonic() - began < 1
