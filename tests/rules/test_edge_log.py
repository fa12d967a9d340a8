"""What a line of the edge's delivery log may say, and what is not one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.downloads.rules import Passed, read_line

ID = "psg_0123456789abcdefghjkmnpqrs"


def line(**changes: object) -> bytes:
    values = {
        "passage": ID,
        "at": "2026-03-02T09:00:00+00:00",
        "status": 206,
        "range": "bytes 100-199/1000",
        "bytes": 100,
        "done": "OK",
    }
    return json.dumps(values | changes).encode()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, Passed(ID, 206, 100, 100, "whole")),
        ({"bytes": 40, "done": ""}, Passed(ID, 206, 100, 40, "client_left")),
        ({"bytes": 0, "done": ""}, Passed(ID, 206, 100, 0, "client_left")),
        ({"bytes": 500}, Passed(ID, 206, 100, 100, "whole")),
        ({"status": 200, "range": "", "bytes": 1000}, Passed(ID, 200, 0, 1000, "whole")),
        ({"status": 304, "range": "", "bytes": 0}, Passed(ID, 304, 0, 0, "whole")),
        ({"status": 412, "bytes": 170}, Passed(ID, 412, 0, 0, "whole")),
        ({"status": 416, "range": "bytes */1000", "bytes": 190}, Passed(ID, 416, 0, 0, "failed")),
        ({"status": 503, "range": "", "bytes": 285}, Passed(ID, 503, 0, 0, "failed")),
    ],
)
def test_what_lines_say(changes, said):
    assert read_line(line(**changes)) == said


@pytest.mark.parametrize(
    "changes",
    [
        {"passage": ""},
        {"passage": None},
        {"passage": ID + "x"},
        {"passage": ID.upper()},
        {"passage": "dl" + ID[3:]},
        {"status": "206"},
        {"status": True},
        {"status": None},
        {"bytes": -1},
        {"bytes": 1.5},
        {"bytes": 2**63},
        {"range": ""},
        {"range": "bytes 199-100/1000"},
        {"range": "bytes */1000"},
        {"range": "bytes 1-" + "9" * 40 + "/1"},
    ],
)
def test_a_line_with_one_thing_wrong_is_refused(changes):
    with pytest.raises(ValueError):
        read_line(line(**changes))


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError):
        read_line(data)


@pytest.mark.parametrize("data", [b"[" * 100_000, b"null", b"[]", line()[:-1], line() * 2])
def test_other_json_is_refused(data):
    with pytest.raises(ValueError):
        read_line(data)
