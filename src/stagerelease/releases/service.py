"""Release control's use cases, under one name for the floors above.

Plans, tracks, promotion requests, the decision and holds each have their own module; nothing is
decided here.
"""

from __future__ import annotations

from stagerelease.releases.applying import (
    announce,
    apply,
    apply_due,
    expire_stale,
    promotions_due,
)
from stagerelease.releases.board import board
from stagerelease.releases.holds import lay_hold, lift_hold, list_holds, show_hold
from stagerelease.releases.planning import apply_plan, list_plans, show_plan
from stagerelease.releases.promotions import (
    cancel,
    edit_promotion,
    facts_page,
    list_promotions,
    open_promotion,
    resubmit,
    what_blocks,
)
from stagerelease.releases.reviewing import approve, judge, reject, request_changes
from stagerelease.releases.tracks import create_track, list_tracks, show_track, withdraw_track

__all__ = [
    "announce",
    "apply",
    "apply_due",
    "apply_plan",
    "approve",
    "board",
    "cancel",
    "create_track",
    "edit_promotion",
    "expire_stale",
    "facts_page",
    "judge",
    "lay_hold",
    "lift_hold",
    "list_holds",
    "list_plans",
    "list_promotions",
    "list_tracks",
    "open_promotion",
    "promotions_due",
    "reject",
    "request_changes",
    "resubmit",
    "show_hold",
    "show_plan",
    "show_track",
    "what_blocks",
    "withdraw_track",
]
