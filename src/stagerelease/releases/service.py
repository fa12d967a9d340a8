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
from stagerelease.releases.ladder import shipped_schema
from stagerelease.releases.looking import facts_page
from stagerelease.releases.planning import (
    diff_versions,
    lint,
    list_plans,
    plan_in_force,
    show_plan,
)
from stagerelease.releases.promotions import (
    cancel,
    edit_promotion,
    list_promotions,
    open_promotion,
    resubmit,
    what_blocks,
)
from stagerelease.releases.proposing import (
    cancel_proposal,
    consent_to_plan,
    expire_proposals,
    list_proposals,
    proposals_due,
    propose_plan,
    show_proposal,
)
from stagerelease.releases.retracting import (
    accept_evidence,
    dispute_evidence,
    retract_evidence,
)
from stagerelease.releases.reviewing import approve, judge, reject, request_changes
from stagerelease.releases.simulating import simulate
from stagerelease.releases.tracks import create_track, list_tracks, show_track, withdraw_track
from stagerelease.releases.waiting import waiting_for_me
from stagerelease.releases.waivers import (
    end_waiver,
    list_waivers,
    propose_waiver,
    show_waiver,
    sign_waiver,
)

__all__ = [
    "accept_evidence",
    "announce",
    "apply",
    "apply_due",
    "approve",
    "board",
    "cancel",
    "cancel_proposal",
    "consent_to_plan",
    "create_track",
    "diff_versions",
    "dispute_evidence",
    "edit_promotion",
    "end_waiver",
    "expire_proposals",
    "expire_stale",
    "facts_page",
    "judge",
    "lay_hold",
    "lift_hold",
    "lint",
    "list_holds",
    "list_plans",
    "list_promotions",
    "list_proposals",
    "list_tracks",
    "list_waivers",
    "open_promotion",
    "plan_in_force",
    "promotions_due",
    "proposals_due",
    "propose_plan",
    "propose_waiver",
    "reject",
    "request_changes",
    "resubmit",
    "retract_evidence",
    "shipped_schema",
    "show_hold",
    "show_plan",
    "show_proposal",
    "show_track",
    "show_waiver",
    "sign_waiver",
    "simulate",
    "waiting_for_me",
    "what_blocks",
    "withdraw_track",
]
