"""One page that shows every part in every state, for those who build pages; off by default."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace as Sample

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.http.pages.begin import BeginVisitor
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.frame import page
from stagerelease.kernel.errors import NotFound

router = APIRouter(include_in_schema=False, dependencies=[Depends(speak_page)])
LADDER = ("internal", "partner", "researcher", "public")
GATES = (
    ("passed", "At least 14 days in the stage below", "21 days", "14 days", "dwell"),
    ("failed", "A detector finds at least 95 % of samples", "91.2 %", "95 %", "detectability"),
    ("inconclusive", "People find samples no more credible than news", "—", "", "credibility"),
    ("pending", "Another developer's window is over", "", "", "coordination"),
    ("waived", "Bias was probed", "no evidence", "one study", "bias"),
)
SIGNS = ((" ", "stages:"), (" ", "  - name: researcher"), ("-", "    quorum: 2"))


def reached(count: int) -> list[Sample]:
    """Return a ladder of which the first ``count`` stages are reached."""
    return [Sample(name=name, reached=n < count) for n, name in enumerate(LADDER)]


@router.get("/design")
def design(request: Request, begin: BeginVisitor) -> Response:
    """Show every part.

    Raises:
        NotFound: the operator has not asked for it.
    """
    if not request.app.state.settings.design_page:
        raise NotFound("There is nothing at this address.", reason="design")
    with begin(read_only=True) as work:
        now = work.now
    events = [
        Sample(
            title="Reported",
            at=now - timedelta(days=3),
            by="a holder",
            said="",
            kind="",
            leaf_idx=9,
        ),
        Sample(
            title="Confirmed",
            at=now - timedelta(days=2),
            by="Security",
            said="A copy was found on a public forum.\nIt carries the mark of one recipient.",
            kind="bad",
            leaf_idx=73_894,
        ),
        Sample(title="Closed", at=now, by="", said="", kind="good", leaf_idx=None),
    ]
    gates = [Sample(outcome=o, rule=r, measured=m, threshold=t, key=k) for o, r, m, t, k in GATES]
    return page(
        request,
        "design.html",
        ladders=[(reached(n + 1), name) for n, name in enumerate(LADDER)],
        gates=gates,
        events=events,
        changes=[*SIGNS, ("+", "    quorum: 3"), (" ", "    agreement: researcher-terms")],
        wrong={"purpose": "Say in a sentence what you want to find out."},
        now=now,
    )
