"""The pages of staff: the board, decisions, holds, plans, papers, incidents, evidence and figures.

A step taken on any of them goes through ``steps``: the permission is asked before a word on the
form, and a refusal shows the page again with what was typed.
"""

from stagerelease.http.pages.desk import (
    agreements,
    board,
    evidence,
    figures,
    handling,
    holds,
    incidents,
    people,
    plans,
    promoting,
    promotions,
    tracks,
    webhooks,
)

ROUTERS = (
    board.router,
    promotions.router,
    promoting.router,
    holds.router,
    tracks.router,
    plans.router,
    incidents.router,
    handling.router,
    evidence.router,
    agreements.router,
    people.router,
    figures.router,
    webhooks.router,
)

__all__ = ["ROUTERS"]
