"""What travels between processes: where tokens stand in a text, and what a refusal carries."""

from __future__ import annotations

import json

import pytest

from stagerelease.engine import wire
from stagerelease.engine.ports import Piece, Token
from stagerelease.kernel.errors import FieldError, Invalid

TEXT = "aé née 🦄 Ω"


def tokens_of(text: str, size: int) -> list[Token]:
    """Return ``text`` in tokens of so many bytes each, spelled as an engine spells them."""
    raw = text.encode()
    tokens = []
    for at in range(0, len(raw), size):
        part = raw[at : at + size]
        try:
            shown = part.decode()
        except UnicodeDecodeError:
            shown = "bytes:" + "".join(f"\\x{byte:02x}" for byte in part)
        tokens.append(Token(at, shown, -1.0))
    return tokens


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("together", [True, False])
def test_a_token_stands_where_its_first_whole_character_does(size: int, together: bool) -> None:
    tokens, places = tokens_of(TEXT, size), wire.Places()
    found = places.of(tokens) if together else [at for t in tokens for at in places.of([t])]
    raw = TEXT.encode()
    wanted = [len(raw[: n * size].decode("utf-8", "ignore")) for n in range(len(tokens))]
    assert found == wanted


def test_what_only_looks_like_bytes_is_text() -> None:
    assert wire.Places().of([Token(1, "bytes: three"), Token(2, "x")]) == [0, 12]
    assert wire.bytes_of("bytes:\\xf0\\x9f") == b"\xf0\x9f"


def test_the_chosen_token_is_among_its_alternatives() -> None:
    told = wire.logprobs_of([Token(5, "x", -9.0, ((1, "a", -0.1),))], wire.Places())
    assert told["top_logprobs"] == [{"a": -0.1, "x": -9.0}]
    assert told["top_ids"] == [[[1, "a", -0.1]]]


@pytest.mark.parametrize("computed", [0, 1, 7])
def test_a_piece_travels_with_its_count(computed: int) -> None:
    piece = Piece(3, "é", (Token(9, "é", -0.5, ((9, "é", -0.5),)),), computed)
    document = {"choices": [wire.piece_choice(piece, wire.Places())]}
    assert wire.events_of(json.loads(json.dumps(document))) == [piece]


def test_a_refusal_travels_with_what_it_is_about() -> None:
    sent = Invalid("No.", reason="engine.token", fields=[FieldError("logit_bias", "No.")])
    read = wire.error_of(json.loads(json.dumps(wire.error_document(sent))), 400)
    assert isinstance(read, Invalid)
    assert [field.field for field in read.fields] == ["logit_bias"]
