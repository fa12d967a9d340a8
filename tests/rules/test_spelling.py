"""What is sent of an answer as it comes: the whole text, no half character, nothing of a stop."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stagerelease.engine.ports import Token
from stagerelease.engine.spelling import Released, Spelling

# Few letters, so that stops begin, break off and overlap; characters of one to four bytes.
LETTERS = "ab\né€😀"
texts = st.text(LETTERS, max_size=30)
stops = st.lists(st.text(LETTERS, max_size=5), max_size=4)
streams = st.one_of(
    texts.map(str.encode),
    st.lists(
        st.sampled_from([b"a", b"b", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"\xf0\x9f", b"\xff"]),
        max_size=30,
    ).map(b"".join),
)
cuts = st.lists(st.integers(1, 4), max_size=60)


def pieces_of(raw: bytes, lengths: list[int]) -> list[bytes]:
    made, at = [], 0
    for length in lengths:
        made.append(raw[at : at + length])  # empty at the end: control tokens
        at += length
    return [*made, raw[at:]] if raw[at:] else made


def whole(raw: bytes) -> str:
    """Decode, less a character that is not finished."""
    for cut in range(min(3, len(raw)) + 1):
        head, tail = raw[: len(raw) - cut], raw[len(raw) - cut :]
        if cut and unfinished(tail):
            return head.decode("utf-8", "replace")
    return raw.decode("utf-8", "replace")


def unfinished(tail: bytes) -> bool:
    """Tell whether some continuation makes ``tail`` one character."""
    need = 4 if tail[0] >= 0xF0 else 3 if tail[0] >= 0xE0 else 2
    if not 0xC2 <= tail[0] <= 0xF4 or len(tail) >= need:
        return False
    for last in (0x80, 0x90, 0xA0, 0xBF):
        for filler in (0x80, 0xBF):
            more = bytes([last] + [filler] * 3)[: need - len(tail)]
            try:
                (tail + more).decode()
            except UnicodeDecodeError:
                continue
            return True
    return False


def before_stop(text: str, ends: list[str]) -> tuple[str, bool]:
    """Read letter by letter: the text before the first stop that is complete."""
    for end in range(1, len(text) + 1):
        met = [stop for stop in ends if stop and text[:end].endswith(stop)]
        if met:
            return text[: end - max(map(len, met))], True
    return text, False


def play(raws: list[bytes], ends: list[str]) -> tuple[list[Released], list[Token]]:
    spelling = Spelling(ends)
    released, given_tokens = [], []
    for number, raw in enumerate(raws):
        token = Token(number, repr(raw))
        given_tokens.append(token)
        released.append(spelling.add(raw, token))
        if released[-1].stopped:
            return released, given_tokens
    released.append(spelling.end())
    return released, given_tokens


@given(streams, cuts, stops)
@example("😀".encode(), [1, 1, 1, 1], [])
@example(b"abab", [1, 1, 1, 1], ["abb"])
@example(b"ba", [2], ["", "a"])
@example(b"aab\n", [4], ["aab\n", "b"])  # a longer stop begins earlier but is complete later
def test_the_pieces_are_the_text_before_the_first_stop(raw, lengths, ends):
    released, _ = play(pieces_of(raw, lengths), ends)
    text, stopped = before_stop(whole(raw), ends)
    assert "".join(piece.text for piece in released) == text
    assert released[-1].stopped == stopped
    assert not any(piece.stopped for piece in released[:-1])


@given(texts, cuts, stops)
def test_no_piece_ends_within_a_character(text, lengths, ends):
    released, _ = play(pieces_of(text.encode(), lengths), ends)
    assert all("\ufffd" not in piece.text for piece in released)


@example("a\n", [1], ["\n", "a\na"])
@given(texts, cuts, stops)
def test_nothing_that_may_become_a_stop_is_sent(text, lengths, ends):
    """After every token, each continuation must still be able to take back all of a stop."""
    spelling, sent = Spelling(ends), ""
    raws = pieces_of(text.encode(), lengths)
    for count, raw in enumerate(raws, 1):
        released = spelling.add(raw)
        sent += released.text
        if released.stopped:  # what stood before the stop is final, whatever else it might begin
            return
        known = whole(b"".join(raws[:count]))
        for stop in filter(None, ends):
            if stop in known:
                continue
            for size in range(1, len(stop)):
                if known.endswith(stop[:size]):
                    assert len(sent) <= len(known) - size
        # ... and no more is held back than that.
        if not any(known.endswith(s[:i]) for s in ends for i in range(1, len(s))):
            assert sent == known


@given(streams, cuts, stops)
def test_tokens_come_out_once_in_order_with_the_text_they_begin(raw, lengths, ends):
    released, told = play(pieces_of(raw, lengths), ends)
    out = [token for piece in released for token in piece.tokens]
    assert out == told[: len(out)]
    if not released[-1].stopped:
        assert out == told
    else:
        # Those that begin before the stop; their bytes are enough to hold what was sent.
        text = "".join(piece.text for piece in released)
        begun = whole(b"".join(pieces_of(raw, lengths)[: len(out)]))
        assert begun.startswith(text)


def test_a_token_is_sent_no_later_than_the_text_after_it():
    spelling = Spelling(["stop"])
    first = spelling.add(b"x st", Token(1, "x st"))
    assert (first.text, [t.id for t in first.tokens]) == ("x ", [1])
    second = spelling.add(b"o", Token(2, "o"))
    assert (second.text, second.tokens) == ("", ())
    third = spelling.add(b"ne", Token(3, "ne"))
    assert (third.text, [t.id for t in third.tokens]) == ("stone", [2, 3])


def test_the_token_that_completes_a_stop_is_not_sent():
    spelling = Spelling(["b"])
    assert [t.id for t in spelling.add(b"a", Token(1, "a")).tokens] == [1]
    end = spelling.add(b"b", Token(2, "b"))
    assert end == Released("", (), stopped=True)


def test_a_prompt_that_ends_within_a_character_is_completed_by_the_answer():
    spelling = Spelling(["é"])
    assert spelling.echo("é😀".encode()[:4]) == "é"
    assert spelling.add("😀".encode()[2:]).text == "😀"


@pytest.mark.parametrize("ends", [[], ["a" * 4000 + "b"], ["ab" * 2000]])
def test_a_long_stop_costs_no_more_than_its_length(ends):
    spelling = Spelling(ends)
    sent = "".join(spelling.add(b"ab").text for _ in range(1000)) + spelling.end().text
    assert sent == "ab" * 1000
