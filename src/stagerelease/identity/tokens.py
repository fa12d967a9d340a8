"""Use cases on API tokens: making one, which is shown once, and ending it with all that it made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, or_, select

from stagerelease.db.work import Work
from stagerelease.identity import queries
from stagerelease.identity.rules import SCOPES, Permission, check_text, make_token_text, require
from stagerelease.identity.tables import ApiToken
from stagerelease.kernel.clock import said
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger

MOST_LIVE = 200
"""Tokens of one account that are not over: whoever ends one ends all it made, in one step."""


def create_token(
    work: Work,
    *,
    person: str,
    name: str,
    scopes: Sequence[str] = ("all",),
    expires_at: datetime | None = None,
    prefix: str = "srp_",
) -> tuple[ApiToken, str]:
    """Make a token for ``person`` and return its row and the text, which is never shown again.

    One that a token asks for ends with that token, or before; see ``revoke_token``.

    Raises:
        Forbidden: the caller may not, or ``person`` is another human: whoever holds somebody's
            token can approve and sign as them, so only the shell on the host hands one over.
            Reason ``token.outlives``: it would last beyond the token the caller came by.
        Conflict: the account has too many already (``token.too-many``).
        NotFound: there is no such person; said only to who makes tokens for others.
    """
    own = work.actor.is_human and person in (work.actor.id, work.actor.name)
    require(work.actor, Permission.TOKEN_MANAGE_OWN if own else Permission.TOKEN_MANAGE_ANY)
    row = queries.load_person(work, person)
    if not own and work.actor.is_human and row.kind == "human":
        raise Forbidden(
            "Nobody makes a token for another person, not even an owner: it could approve and "
            f"sign as {row.handle}.",
            reason="token.other-person",
            next_step="They make it themselves, or the operator does with `stagerelease token "
            "create` on the host.",
        )
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise Invalid(
            f"No such scope: {', '.join(unknown) or '(none given)'}. There are "
            f"{', '.join(sorted(SCOPES))}.",
            reason="token.scope",
        )
    if expires_at is not None and expires_at <= work.now:
        raise Invalid("A token must end in the future.", reason="token.dates")
    expires_at = _within_own(work, expires_at)
    _check_room(work, row.id)
    text = make_token_text(prefix)
    token = ApiToken(
        id=new_id("tok"),
        person_id=row.id,
        name=check_text(name, "token name"),
        display=text[:8],
        sha256=hashlib.sha256(text.encode()).digest(),
        scopes=sorted(set(scopes)),
        created_at=work.now,
        expires_at=expires_at,
        made_by=work.actor.token_id,
    )
    work.session.add(token)
    ledger.append(
        work,
        type="token.created",
        subject=f"token:{token.id}",
        detail={"person": row.id, "scopes": token.scopes, "by_token": work.actor.token_id},
    )
    return token, text


def _within_own(work: Work, expires_at: datetime | None) -> datetime | None:
    """Return when a new token ends: with the token the caller came by, unless before.

    Its scopes need no look: only a token of all scopes makes others.

    Raises:
        Forbidden: it would last beyond the caller's token.
    """
    if work.actor.token_id is None:
        return expires_at
    # Locked, so that whoever ends that token meanwhile finds this one, or this one is not made.
    by = work.session.get_one(ApiToken, work.actor.token_id, with_for_update=True)
    if by.revoked_at is not None:
        raise Unauthenticated("The token you came by was ended just now.", reason="token.revoked")
    own = by.expires_at
    if own is not None and expires_at is not None and expires_at > own:
        raise Forbidden(
            f"The token you came by ends at {said(own)}, and so does every token it makes.",
            reason="token.outlives",
            next_step="Ask for an earlier end, or sign in and make it there.",
        )
    return own if expires_at is None else expires_at


def _check_room(work: Work, person_id: str) -> None:
    """Return only if an account may have one token more.

    Raises:
        Conflict: it has as many live ones as anybody may.
    """
    live = select(func.count()).where(
        ApiToken.person_id == person_id,
        ApiToken.revoked_at.is_(None),
        or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > work.now),
    )
    if work.session.execute(live).scalar_one() >= MOST_LIVE:
        raise Conflict(
            f"This account has {MOST_LIVE} tokens that are not over, and nobody may have more.",
            reason="token.too-many",
            next_step="Revoke those that are not used any more.",
        )


def revoke_token(work: Work, token_id: str) -> None:
    """End a token now, and every token that was made with it, however far down.

    Requests with them are refused at once; downloads in flight are cut. A token that leaked may
    have made others before anybody saw it.
    """
    token = work.session.execute(
        select(ApiToken).where(ApiToken.id == token_id).with_for_update()
    ).scalar_one_or_none()
    own = token is not None and work.actor.is_human and token.person_id == work.actor.id
    require(work.actor, Permission.TOKEN_MANAGE_OWN if own else Permission.TOKEN_MANAGE_ANY)
    if token is None:
        raise NotFound(f"There is no token {token_id!r}.", reason="token.unknown")
    end_tokens(work, [token])


def end_tokens(work: Work, roots: Sequence[ApiToken]) -> None:
    """End these tokens now, those that are not over yet, and every one that was made with them.

    All are locked before anything is logged: whoever makes a token with one of them holds its row
    while it waits for its place in the log, and the two must not wait for each other.
    """
    because = {token.id: token.id for token in roots}
    tree, level = list(roots), list(roots)
    while level:
        made = select(ApiToken).where(ApiToken.made_by.in_([one.id for one in level]))
        found = work.session.scalars(made.order_by(ApiToken.id).with_for_update())
        level = [one for one in found if one.id not in because]
        because |= {one.id: because[str(one.made_by)] for one in level}
        tree += level
    for token in [one for one in tree if one.revoked_at is None]:
        token.revoked_at = work.now
        token.end_announced_at = work.now
        root = because[token.id]
        detail = {"made_by": token.made_by} if token.made_by is not None else {}
        if root != token.id:
            detail["because_of"] = root
        ledger.append(work, type="token.revoked", subject=f"token:{token.id}", detail=detail)


def tokens_made_by(work: Work, person_id: str) -> list[ApiToken]:
    """Return, locked, the tokens of others that were made with one of this person's."""
    theirs = select(ApiToken.id).where(ApiToken.person_id == person_id)
    made = select(ApiToken).where(ApiToken.made_by.in_(theirs), ApiToken.person_id != person_id)
    return list(work.session.scalars(made.order_by(ApiToken.id).with_for_update()))
