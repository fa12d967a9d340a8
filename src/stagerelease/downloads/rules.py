"""What one line of the edge's delivery log says. Pure: no files, no database.

The line is written by the ``passages`` log format of deploy/nginx/nginx.conf.template.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_PASSAGE = re.compile(r"psg_[0-9a-z]{26}\Z")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})\Z")
_MOST = 2**62
NO_FILE_BYTES = frozenset({304, 412})
"""Answers to a condition (RFC 9110 §13): nothing of the file was to be sent."""


MOST_RUNS = 1000
"""In how many pieces, none touching the next, what has left of a file is remembered."""
Runs = list[list[int]]


def cover(runs: Runs, first: int, sent: int) -> Runs:
    """Return what has left of a file once ``sent`` bytes from ``first`` have, too.

    Runs are ``[from, to)`` in order, none touching the next. Of more than ``MOST_RUNS`` the last
    are forgotten: nobody fetches a file so, and a download cannot be made to cost ever more.

    >>> cover([[0, 4], [8, 12]], 4, 3)
    [[0, 7], [8, 12]]
    """
    start, end = first, first + sent
    if sent <= 0:
        return runs
    before = [run for run in runs if run[1] < start]
    after = [run for run in runs if run[0] > end]
    touched = runs[len(before) : len(runs) - len(after)]
    joined = [min([start, *(run[0] for run in touched)]), max([end, *(run[1] for run in touched)])]
    return [*before, joined, *after][:MOST_RUNS]


def is_whole(runs: Runs, size: int) -> bool:
    """Tell whether ``runs`` hold every byte of a file."""
    return size == 0 or (bool(runs) and runs[0][0] == 0 and runs[0][1] >= size)


@dataclass(frozen=True, slots=True)
class Passed:
    """How one answer of the edge ended: which, from which byte, how many, and in what way.

    ``outcome`` is ``whole``, ``client_left`` or ``failed``, as for bytes this service sends.
    """

    passage_id: str
    status: int
    first: int
    sent: int
    outcome: str


def read_line(line: bytes) -> Passed:
    """Return what a line says.

    Raises:
        ValueError: it is not a line of that format.
    """
    try:
        values = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("not an object")
    passage, status, sent = values.get("passage"), values.get("status"), values.get("bytes")
    if not isinstance(passage, str) or not _PASSAGE.match(passage):
        raise ValueError("no passage id")
    if type(status) is not int or type(sent) is not int or not 0 <= sent < _MOST:
        raise ValueError("no status or no count of bytes")
    if status == 206:
        found = _CONTENT_RANGE.match(str(values.get("range")))
        if found is None or int(found[2]) < int(found[1]):
            raise ValueError("a part without a usable range")
        first, most = int(found[1]), int(found[2]) - int(found[1]) + 1
    elif status == 200:
        first, most = 0, _MOST
    else:
        # What left is a page about the answer, not a byte of the file.
        return Passed(passage, status, 0, 0, "whole" if status in NO_FILE_BYTES else "failed")
    outcome = "whole" if values.get("done") == "OK" else "client_left"
    return Passed(passage, status, first, min(sent, most), outcome)
