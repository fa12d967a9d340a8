"""Who holds what, now or then; and how what was released is used, drawn and in figures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from urllib.parse import urlencode

from fastapi import Request, Response

from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.holds import MOST
from stagerelease.http.pages.desk.steps import desk_router, instant
from stagerelease.http.pages.frame import page
from stagerelease.http.problems import status_of
from stagerelease.identity import queries as people
from stagerelease.incidents import service as incidents
from stagerelease.incidents.watching import UsageRow
from stagerelease.kernel.errors import Invalid, NotFound
from stagerelease.partners import service as partners
from stagerelease.partners.rules import GrantState
from stagerelease.releases import queries as releases

router = desk_router("/staff")
ROWS = 100
DAYS = 28
WIDE, HIGH = 720, 180


@router.get("/holders")
def holders(
    request: Request,
    begin: BeginPage,
    at: str = "",
    track: str = "",
    organisation: str = "",
    state: str = "",
    after: str = "",
) -> Response:
    """Say who holds what, now or at an instant."""
    refusal: Invalid | NotFound | None = None
    rows = []
    with begin(read_only=True) as work:
        try:
            rows = partners.holders_report(
                work,
                at=instant(at.strip(), "at"),
                track_id=track or None,
                organisation=organisation or None,
                state=state or None,
                limit=ROWS + 1,
                after=after or None,
            )
        except (Invalid, NotFound) as error:
            refusal = error
        tracks = releases.list_tracks(work, limit=MOST)
        organisations = people.list_organisations(work)[:MOST]
        now = work.now
    asked = {"at": at, "track": track, "organisation": organisation, "state": state}
    older = ""
    if len(rows) > ROWS:
        older = "/staff/holders?" + urlencode({**asked, "after": rows[ROWS - 1].grant_id})
    return page(
        request,
        "desk/holders.html",
        status=status_of(refusal) if refusal else 200,
        rows=rows[:ROWS],
        asked=asked,
        now=now,
        tracks=[(row.id, f"{row.repo_id}, {row.kind}") for row in tracks],
        organisations=[(row.slug, row.name) for row in organisations],
        states=[(one.value, one.value.capitalize()) for one in GrantState],
        older=older,
        newer="/staff/holders?" + urlencode(asked) if after else "",
        refusal=refusal,
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """One day of a plot, in the units of its drawing."""

    day: date
    deliveries: int
    completed: int
    bytes: int
    x: float
    width: float
    top: float
    height: float


def bars(rows: list[UsageRow], until: date) -> tuple[list[Bar], int]:
    """Return one bar for each of the last ``DAYS`` days, and the count the highest stands for.

    Pure. Days without deliveries have a bar of no height.
    """
    totals = {until - timedelta(days=n): [0, 0, 0] for n in range(DAYS)}
    for row in rows:
        if row.day in totals:
            for n, value in enumerate((row.deliveries, row.completed, row.bytes)):
                totals[row.day][n] += value
    highest = max(1, *(deliveries for deliveries, _, _ in totals.values()))
    step = WIDE / DAYS
    found = []
    for n, day in enumerate(sorted(totals)):
        deliveries, completed, size = totals[day]
        height = round(HIGH * deliveries / highest, 1)
        found.append(
            Bar(
                day,
                deliveries,
                completed,
                size,
                round(n * step + 2, 1),
                round(step - 4, 1),
                round(HIGH - height, 1),
                height,
            )
        )
    return found, highest


@router.get("/usage")
def usage(request: Request, begin: BeginPage, track: str = "") -> Response:
    """Show deliveries of the last four weeks, and what stands out in them."""
    with begin(read_only=True) as work:
        rows = incidents.usage(work, track_id=track or None)
        odd = incidents.list_anomalies(work, days=DAYS, track_id=track or None, limit=50)
        tracks = releases.list_tracks(work, limit=MOST)
        drawn, highest = bars(rows, work.now.date())
    return page(
        request,
        "desk/usage.html",
        bars=drawn,
        highest=highest,
        wide=WIDE,
        high=HIGH,
        total=sum(bar.deliveries for bar in drawn),
        sent=sum(bar.bytes for bar in drawn),
        grants=len({row.grant_id for row in rows if row.grant_id}),
        anomalies=odd,
        tracks=[(row.id, f"{row.repo_id}, {row.kind}") for row in tracks],
        names={row.id: row.repo_id for row in tracks},
        track=track,
        days=DAYS,
    )
