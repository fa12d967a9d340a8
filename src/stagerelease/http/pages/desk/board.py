"""The board: every track against every stage, and beside it what waits for the one who looks."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import Request, Response

from stagerelease.access import service as access
from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.steps import desk_router
from stagerelease.http.pages.forms import whole
from stagerelease.http.pages.frame import page
from stagerelease.identity.rules import Permission, authorize
from stagerelease.incidents import service as incidents
from stagerelease.incidents.rows import IncidentRow
from stagerelease.releases import service as releases

router = desk_router("/staff")
ROWS = 50
BESIDE = 5
SHOWS = {"all": "All tracks", "waiting": "With an open request"}
LAST_PAGE = 100_000


@router.get("")
def board(request: Request, begin: BeginPage, q: str = "", show: str = "all") -> Response:
    """Show the board, a page of tracks at a time."""
    number = request.query_params.get("page", "1")
    at = max(1, min(whole(number) or 1, LAST_PAGE))
    show = show if show in SHOWS else "all"
    named = q.strip()[:100]
    with begin(read_only=True) as work:
        found = releases.board(
            work,
            named=named,
            waiting_only=show == "waiting",
            offset=(at - 1) * ROWS,
            limit=ROWS,
        )
        mine = releases.waiting_for_me(work)
        oldest, asked = _requests(work)
        opened = _incidents(work)
        now = work.now

    def address(number: int) -> str:
        return "/staff?" + urlencode({"q": named, "show": show, "page": number})

    return page(
        request,
        "desk/board.html",
        part="desk/board_table.html",
        board=found,
        q=named,
        show=show,
        shows=SHOWS,
        newer=address(at - 1) if at > 1 else "",
        older=address(at + 1) if found.more else "",
        mine=mine,
        oldest=oldest,
        asked=asked,
        incidents=opened,
        now=now,
    )


def _requests(work: Work) -> tuple[tuple[access.Queued, ...], int]:
    """Return the requests for access that wait longest, and how many there are."""
    if not authorize(work.actor, Permission.ACCESS_REQUEST_READ).allowed:
        return (), 0
    found = access.queue(work, limit=BESIDE)
    return found.rows, sum(found.waiting.values())


def _incidents(work: Work) -> list[IncidentRow]:
    if not authorize(work.actor, Permission.INCIDENT_READ).allowed:
        return []
    return incidents.list_incidents(work, state="open", limit=BESIDE)
