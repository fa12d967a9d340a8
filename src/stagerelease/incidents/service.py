"""Incidents' use cases, under one name for the faces and the floors above.

Reporting, handling, closing, advisories and watching each have their own module; nothing is decided
here.
"""

from __future__ import annotations

from stagerelease.incidents.advising import (
    acknowledge,
    advisory_receipts,
    my_advisories,
    overdue_advisories,
    send_advisory,
)
from stagerelease.incidents.closing import close
from stagerelease.incidents.covering import Links
from stagerelease.incidents.handling import (
    add_note,
    confirm,
    dismiss,
    mitigate,
    reassess,
    reopen,
    triage,
)
from stagerelease.incidents.reporting import add_words, erase_report, follow, forget_me, report
from stagerelease.incidents.showing import (
    list_incidents,
    public_incident,
    public_incidents,
    show_incident,
)
from stagerelease.incidents.watching import draft_monitoring, list_anomalies, usage

__all__ = [
    "Links",
    "acknowledge",
    "add_note",
    "add_words",
    "advisory_receipts",
    "close",
    "confirm",
    "dismiss",
    "draft_monitoring",
    "erase_report",
    "follow",
    "forget_me",
    "list_anomalies",
    "list_incidents",
    "mitigate",
    "my_advisories",
    "overdue_advisories",
    "public_incident",
    "public_incidents",
    "reassess",
    "reopen",
    "report",
    "send_advisory",
    "show_incident",
    "triage",
    "usage",
]
