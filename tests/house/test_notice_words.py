"""Every event that is emitted has words, and every word is for an event that is emitted."""

from __future__ import annotations

import ast
from pathlib import Path

from stagerelease.notices.catalogue import WORDS
from stagerelease.notices.words import GROUPS

SRC = Path(__file__).resolve().parents[2] / "src/stagerelease"
COMPOSED = {  # emitted as f"<prefix>.{what}": the words that may follow
    "grant": {
        *("issued", "renewed", "suspended", "resumed", "revoked", "expired"),
        *("given_up", "renewal_asked"),
    },
    "attestation": {"opened", "signed"},
    "signature": {"countersigned", "terminated", "expired"},
}


def emitted() -> tuple[set[str], set[str]]:
    """Return the names of events in calls of ``emit``, and the prefixes of composed ones."""
    names, prefixes = set(), set()
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "emit":
                continue
            event = node.args[1]
            if isinstance(event, ast.Constant):
                names.add(event.value)
            elif isinstance(event, ast.JoinedStr):
                prefixes.add(event.values[0].value.rstrip("."))
            else:
                raise AssertionError(f"{path.name}: an event is named by a text, not computed")
    return names, prefixes


def test_every_event_has_words_and_every_word_an_event():
    names, prefixes = emitted()
    assert names - set(WORDS) == set()
    spoken = {name.partition(".")[0] for name in WORDS}
    assert prefixes <= spoken
    for prefix, whats in COMPOSED.items():
        assert {f"{prefix}.{what}" for what in whats} <= set(WORDS)
    silent = {n for n in WORDS if n not in names and n.partition(".")[0] not in prefixes}
    assert silent == set()


def test_every_word_is_whole():
    for name, words in WORDS.items():
        assert words.group in GROUPS, name
        for text in (words.title, words.said, words.why, words.todo):
            assert text
            assert text == text.strip(), name
        assert words.why.endswith("."), name
        assert words.todo.endswith("."), name
