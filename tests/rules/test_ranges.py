"""Range selection against a reference that walks every position of a small file."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stagerelease.http.ranges import Selection, select

SIZES = st.integers(0, 12)
NUMBERS = st.one_of(st.integers(0, 14), st.sampled_from([10**17, 10**18, 10**25, 10**5000]))
DIGITS = st.builds(
    lambda zeros, n: "0" * zeros + (str(n) if n < 10**100 else "9" * 5001),
    st.integers(0, 2),
    NUMBERS,
)
SPECS = st.one_of(
    st.builds("{}-{}".format, DIGITS, DIGITS),
    st.builds("{}-".format, DIGITS),
    st.builds("-{}".format, DIGITS),
)
SPACES = st.sampled_from(["", " ", "\t ", "  "])


def wanted(spec: str, position: int, size: int) -> bool:
    """Tell whether ``spec`` asks for the byte at ``position``, counting digits by hand."""
    first, last = spec.split("-")
    if not first:
        return size - position <= as_number(last)
    return as_number(first) <= position and (not last or position <= as_number(last))


def as_number(digits: str) -> int:
    value = 0
    for digit in digits[-60:] if len(digits) < 100 else "9" * 60:
        value = value * 10 + int(digit)
    return value


def reference(spec: str, size: int) -> tuple[int, list[int]]:
    first, last = spec.split("-")
    everything = list(range(size))
    if first and last and as_number(last) < as_number(first):
        return 200, everything
    chosen = [position for position in everything if wanted(spec, position, size)]
    if chosen:
        return 206, chosen
    return (200, []) if not first and as_number(last) > 0 else (416, [])


@given(
    spec=SPECS, size=SIZES, before=SPACES, after=SPACES, unit=st.sampled_from(["bytes", "Bytes"])
)
@example(spec="0-0", size=1, before="", after="", unit="bytes")
@example(spec="-0", size=5, before="", after="", unit="bytes")
@example(spec="-3", size=0, before="", after="", unit="bytes")
@example(spec="0-", size=0, before="", after="", unit="bytes")
@example(spec=f"{10**25}-{10**24}", size=0, before="", after="", unit="bytes")
def test_one_range_selects_what_the_reference_selects(spec, size, before, after, unit):
    chosen = select(size, range_header=f"{unit}={before}{spec}{after}")
    status, positions = reference(spec, size)
    assert chosen.status == status
    assert list(range(chosen.start, chosen.start + chosen.length)) == positions
    if status == 206:
        assert chosen.content_range == f"bytes {positions[0]}-{positions[-1]}/{size}"
    else:
        assert chosen.content_range == (f"bytes */{size}" if status == 416 else None)


@pytest.mark.parametrize(
    "header",
    [
        "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1-2-3", "bytes=1--2", "bytes= 1 - 2",
        "bytes=0-1,3-4", "bytes=0-1,", ",bytes=0-1", "items=0-1", "bytes=+1-2", "bytes=0x0-1",
        "bytes=1", "bytes=-1-", "bytes=٠-١", "bytes=3-1", "bytes=0-1\n",
    ],
)  # fmt: skip
def test_what_is_malformed_or_in_parts_is_answered_whole(header):
    assert select(10, range_header=header) == Selection(200, 0, 10, 10)


@given(header=st.text(max_size=30), size=SIZES)
def test_no_header_breaks_it_or_selects_outside_the_file(header, size):
    for text in (header, f"bytes={header}"):
        chosen = select(size, range_header=text)
        assert 0 <= chosen.start <= chosen.start + chosen.length <= size
        assert (chosen.length > 0) or chosen.status in (200, 416)
        assert chosen.status != 200 or chosen.length == size


ETAG = '"0123abcd"'
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("if_range", "etag", "status"),
    [
        (ETAG, ETAG, 206),
        (f" {ETAG} ", ETAG, 206),
        ('"other"', ETAG, 200),
        (ETAG.strip('"'), ETAG, 200),
        (f"W/{ETAG}", ETAG, 200),
        (f"W/{ETAG}", f"W/{ETAG}", 200),
        (ETAG, f"W/{ETAG}", 200),
        (ETAG, None, 200),
        (DATE, ETAG, 206),
        ("Sunday, 06-Nov-94 08:49:37 GMT", ETAG, 206),
        ("Sun, 06 Nov 1994 08:49:38 GMT", ETAG, 200),
        ("Sun, 06 Nov 1994 08:49:36 GMT", ETAG, 200),
        ("yesterday", ETAG, 200),
        ("", ETAG, 200),
    ],
)
def test_if_range_must_equal_a_strong_validator(if_range, etag, status):
    chosen = select(10, range_header="bytes=2-3", if_range=if_range, etag=etag, last_modified=DATE)
    assert chosen.status == status
    assert chosen.length == (2 if status == 206 else 10)


def test_a_date_without_last_modified_matches_nothing():
    assert select(10, range_header="bytes=2-3", if_range=DATE, etag=ETAG).status == 200


def test_if_range_without_range_changes_nothing():
    assert select(10, range_header=None, if_range=ETAG, etag=ETAG).status == 200


INSTANTS = st.integers(600_000_000, 4_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))


@given(at=INSTANTS)
def test_a_date_we_wrote_ourselves_always_matches(at):
    written = format_datetime(at, usegmt=True)
    assert select(9, range_header="bytes=0-", if_range=written, last_modified=written).status == 206
