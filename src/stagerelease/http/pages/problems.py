"""The pages that problem types point at: what a refusal means, for whoever follows its address."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.frame import page
from stagerelease.http.problems import all_codes, status_of
from stagerelease.kernel.errors import NotFound

router = APIRouter(prefix="/problems", include_in_schema=False, dependencies=[Depends(speak_page)])


def _rows() -> list[tuple[str, int, str, str]]:
    """Return code, status, title and meaning of every problem type."""
    return [
        (code, status_of(cls.__new__(cls)), cls.title, " ".join((cls.__doc__ or "").split()))
        for code, cls in sorted(all_codes().items())
    ]


@router.get("")
async def show_problems(request: Request) -> Response:
    """List every problem type."""
    return page(request, "problems.html", rows=_rows(), code="")


@router.get("/{code}")
async def explain(request: Request, code: str) -> Response:
    """Explain a problem type."""
    rows = [row for row in _rows() if row[0] == code]
    if not rows:
        raise NotFound(f"There is no problem type {code!r}.", reason="problem")
    return page(request, "problems.html", rows=rows, code=code)
