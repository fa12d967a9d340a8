"""This slice's use cases, under one name for the faces.

A reviewer's acceptance issues a grant in the same transaction; taking it back revokes that grant.
Every step is an event that the applicant can read, and a log entry.
"""

from __future__ import annotations

from stagerelease.access.asking import (
    RequestPage,
    list_requests,
    show_request,
    submit,
    withdraw,
)
from stagerelease.access.deciding import accept, decide, find_for, grant, reject, reopen

__all__ = [
    "RequestPage",
    "accept",
    "decide",
    "find_for",
    "grant",
    "list_requests",
    "reject",
    "reopen",
    "show_request",
    "submit",
    "withdraw",
]
