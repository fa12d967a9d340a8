"""May this caller have this, and why. Pure: facts in, one Decision out, deny by default.

The order of questions is fixed, so that a refusal never tells more than the caller may know:
visible → stopped (hold, withdrawal) → open to everyone → staff → grants.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

WEIGHTS = "weights"
WHOLE = ("output_dataset", "detector")
"""Kinds that a whole revision has, when it is of them at all."""


def leading_kind(tracked: Collection[str]) -> str:
    """Return the kind that a revision as a whole is released as: its weights, or what it is of."""
    if WEIGHTS not in tracked:
        for kind in WHOLE:
            if kind in tracked:
                return kind
    return WEIGHTS


def governing_kind(kind: str, tracked: Collection[str]) -> str | None:
    """Return which of the tracked kinds decides on files of ``kind``, or None: no release does.

    Its own, when that is tracked. What only accompanies (tokenizer, card, code) otherwise goes
    with the revision as a whole. Weights and whole kinds go with nothing but themselves: opening a
    tokenizer never opens weights.
    """
    if kind in tracked:
        return kind
    leading = leading_kind(tracked)
    if kind == WEIGHTS or kind in WHOLE or leading not in tracked:
        return None
    return leading


class Action(StrEnum):
    """What is asked of a release."""

    DOWNLOAD = "download"
    INFER = "infer"


STOPPED = frozenset({"held", "withdrawn"})
"""Reasons for which a release delivers nothing to anyone, whatever they hold."""
EVERY_ACTION = frozenset(action.value for action in Action)


@dataclass(frozen=True, slots=True)
class GrantFact:
    """One grant of this caller on this track, as it stands now.

    ``gives`` is what the stage that the grant admits at gives, by the plan in force: a grant never
    exceeds it, whatever it says itself.
    """

    id: str
    active: bool
    permissions: frozenset[str]
    reason: str
    sentence: str
    until: datetime | None
    gives: frozenset[str] = EVERY_ACTION


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision may look at, read at one instant."""

    known: bool
    staff: bool
    scoped_out: bool  # the token's scopes leave no room for this action
    stage: str | None  # None: the revision is on no track, so it is not part of any release
    audience: str  # staff | organisations | people | everyone
    listed: bool  # everybody may know of it, or, once withdrawn, might before
    withdrawn: bool
    agreement: str | None
    holds: Sequence[str]  # public reasons
    grants: Sequence[GrantFact]
    pending_request: bool = False
    rejected_reason: str | None = None
    gives: frozenset[str] = EVERY_ACTION  # what the stage gives to everyone it is open to
    staff_until: datetime | None = None  # when what makes the caller staff ends: token or role
    was_let_in: bool = False  # a grant of theirs counted until the release was withdrawn


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, the stable reason for it, and what it rests on.

    ``visible``: whether the caller may know that this exists at all. ``until``: when it must be
    asked again at the latest, or None.
    """

    allowed: bool
    visible: bool
    reason: str
    sentence: str = ""
    next_step: str = ""
    grant_id: str | None = None
    until: datetime | None = None


def decide(facts: Facts, action: Action) -> Decision:
    """Return the decision on ``action`` and its reason."""
    open_to_all = facts.stage is not None and facts.audience == "everyone" and not facts.withdrawn
    holder = any(grant.active for grant in facts.grants)
    let_in = holder or facts.was_let_in
    visible = facts.staff or let_in or (facts.stage is not None and facts.listed)
    if not visible:
        return Decision(False, False, "hidden")
    if facts.withdrawn:
        return Decision(
            False,
            True,
            "withdrawn",
            "This release was withdrawn: its files are no longer delivered to anyone.",
            "Its page says why. Copies you hold stay under your agreement.",
        )
    if facts.holds:
        return Decision(
            False,
            True,
            "held",
            f"This release is on hold: {' '.join(facts.holds)}",
            "Nothing is delivered until the hold is lifted; there is nothing you need to do.",
        )
    if open_to_all and action.value in facts.gives:
        return Decision(True, True, "public")
    if facts.scoped_out:
        return Decision(
            False,
            True,
            "token.scope",
            f"This token was not made for {action.value}.",
            f"Use a token with the scope '{action.value}' or 'all'.",
        )
    if facts.staff:
        return Decision(True, True, "staff", until=facts.staff_until)
    usable = [g for g in facts.grants if g.active and action.value in g.permissions & g.gives]
    if usable:
        best = max(usable, key=_reach)
        return Decision(True, True, "grant", grant_id=best.id, until=best.until)
    if open_to_all or any(g.active and action.value in g.permissions for g in facts.grants):
        return _not_at_this_stage(facts, action)
    return _refusal(facts, action)


def _not_at_this_stage(facts: Facts, action: Action) -> Decision:
    open_to_all = facts.audience == "everyone"
    given = facts.gives.union(*(g.gives for g in facts.grants if g.active and not open_to_all))
    other = " and ".join(sorted(given - {action.value})) or "nothing"
    return Decision(
        False,
        True,
        "stage.permission",
        f"At this stage the release is offered for {other}, not for {action.value}.",
        "Its page says which stage comes next; there is nothing you need to do.",
    )


def _reach(grant: GrantFact) -> tuple[bool, float]:
    """Order grants by how long they last; an open end lasts longest."""
    return (grant.until is None, grant.until.timestamp() if grant.until else 0.0)


def _refusal(facts: Facts, action: Action) -> Decision:
    if not facts.known:
        return Decision(
            False,
            True,
            "anonymous",
            "This release is gated, and nobody is signed in.",
            "Send your access token (HF_TOKEN, or 'Authorization: Bearer …').",
        )
    if any(grant.active for grant in facts.grants):
        return Decision(
            False,
            True,
            "grant.permission",
            f"Your grant does not include {action.value}.",
            "Ask the access officer to widen it.",
        )
    if facts.grants:
        grant = facts.grants[0]
        return Decision(False, True, grant.reason, grant.sentence, "Ask the access officer.")
    if facts.rejected_reason is not None:
        return Decision(
            False,
            True,
            "request.rejected",
            f"Your access request was rejected: {facts.rejected_reason}",
            "You may apply again after the date it names.",
        )
    if facts.pending_request:
        return Decision(
            False,
            True,
            "request.pending",
            "Your access request is waiting for a decision.",
            "You will be told; there is nothing more to do.",
        )
    needs = f" after signing the agreement '{facts.agreement}'" if facts.agreement else ""
    who = {"organisations": "partner organisations", "people": "admitted researchers"}.get(
        facts.audience, "staff"
    )
    return Decision(
        False,
        True,
        "no-grant",
        f"This release is at the {facts.stage} stage: it is delivered to {who}{needs}, "
        "and you hold no grant for it.",
        "Ask for access on its page, or have your organisation's administrator do so.",
    )
