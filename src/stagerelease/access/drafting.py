"""Use cases on drafts: begin one, save what was typed, mistakes and all, show it, throw it away.

A visitor without an account holds a secret that opens their draft; it is shown once and stored
hashed. Somebody who is signed in needs none. ``sending`` takes a draft from here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from stagerelease.access import formbook
from stagerelease.access.abuse import UNKNOWN_NETWORK, Limited, Visitor
from stagerelease.access.answers import Answers, as_typed, judge
from stagerelease.access.asking import askable
from stagerelease.access.formbook import FormPage
from stagerelease.access.moving import lock_applicant
from stagerelease.access.rules import (
    DRAFT_KEPT,
    DraftState,
)
from stagerelease.access.tables import AccessDraft
from stagerelease.access.throttle import spend
from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.kernel.clock import said
from stagerelease.kernel.errors import Conflict, FieldError, Invalid, NotFound
from stagerelease.kernel.ids import new_id, new_salt
from stagerelease.releases.humans import accountable
from stagerelease.releases.queries import storable

EDITABLE = frozenset({DraftState.OPEN, DraftState.UNCONFIRMED})


@dataclass(frozen=True, slots=True)
class DraftRow:
    """A draft as its author sees it.

    ``page`` is the form as it is asked now; ``wrong`` has a sentence for each field that keeps
    the draft from being sent. ``secret`` is set once, on the answer that made an anonymous draft.
    """

    id: str
    state: str
    repo_id: str
    answers: Answers
    wrong: tuple[FieldError, ...]
    page: FormPage
    address: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    mailed_at: datetime | None
    request_id: str | None
    version: int
    secret: str | None = None


def _unknown(draft_id: str) -> NotFound:
    return NotFound(
        f"There is no draft {draft_id[:60]!r}, or it is not yours, or it was sent already.",
        reason="access.draft-unknown",
        next_step="Begin a new one; if you sent it, look at your requests.",
    )


# --- opening ------------------------------------------------------------------------------------


def open_draft(work: Work, draft_id: str, secret: str | None, *, lock: bool = True) -> AccessDraft:
    """Return a draft to its author: the person who made it, or who shows its secret.

    Raises:
        NotFound: there is none, it is somebody else's, or it is over.
    """
    draft = None
    if storable(draft_id):
        statement = select(AccessDraft).where(AccessDraft.id == draft_id)
        if lock:
            statement = statement.with_for_update(key_share=True)
        draft = work.session.execute(
            statement.execution_options(populate_existing=True)
        ).scalar_one_or_none()
    if draft is None or not _is_author(work, draft, secret):
        raise _unknown(draft_id)
    over = draft.state in EDITABLE and draft.expires_at <= work.now
    if over or draft.state in (DraftState.DISCARDED, DraftState.EXPIRED):
        raise NotFound(
            f"This draft was kept until {said(draft.expires_at)} and is gone.",
            reason="access.draft-expired",
            next_step="Begin a new one.",
        )
    return draft


def _is_author(work: Work, draft: AccessDraft, secret: str | None) -> bool:
    if draft.person_id is not None:
        return work.actor.is_human and work.actor.id == draft.person_id
    if draft.secret_sha256 is None or secret is None:
        return False
    return hmac.compare_digest(draft.secret_sha256, hashlib.sha256(secret.encode()).digest())


def row_of(work: Work, draft: AccessDraft, *, secret: str | None = None) -> DraftRow:
    """Return a draft as its author sees it now, with what keeps it from being sent."""
    work.session.flush()
    repo_id = work.session.execute(
        select(Variant.repo_id).where(Variant.id == draft.variant_id)
    ).scalar_one()
    page = formbook.page_of(work, draft.variant_id, repo_id)
    _, wrong = judge(page.form, draft.answers, family=page.family)
    return DraftRow(
        id=draft.id,
        state=draft.state,
        repo_id=repo_id,
        answers=dict(draft.answers),
        wrong=wrong,
        page=page,
        address=draft.address,
        created_at=draft.created_at,
        updated_at=draft.updated_at,
        expires_at=draft.expires_at,
        mailed_at=draft.mailed_at,
        request_id=draft.request_id,
        version=draft.version,
        secret=secret,
    )


def show_draft(work: Work, draft_id: str, *, secret: str | None = None) -> DraftRow:
    """Return a draft to its author.

    Raises:
        NotFound: there is none, it is somebody else's, it was sent, or its time is over.
    """
    return row_of(work, open_draft(work, draft_id, secret, lock=False))


def find_draft(work: Work, *, repo_id: str) -> DraftRow | None:
    """Return the draft that somebody who is signed in has begun for a repository, or None."""
    if not work.actor.is_human or not storable(repo_id):
        return None
    variant_id = work.session.execute(
        select(Variant.id).where(Variant.repo_id == repo_id)
    ).scalar_one_or_none()
    draft = _mine(work, variant_id, lock=False) if variant_id is not None else None
    return row_of(work, draft) if draft is not None else None


def _mine(work: Work, variant_id: str, *, lock: bool) -> AccessDraft | None:
    statement = (
        select(AccessDraft)
        .where(
            AccessDraft.person_id == work.actor.id,
            AccessDraft.variant_id == variant_id,
            AccessDraft.state == DraftState.OPEN,
            AccessDraft.expires_at > work.now,
        )
        .order_by(AccessDraft.updated_at.desc(), AccessDraft.id)
        .limit(1)
    )
    if lock:
        statement = statement.with_for_update(key_share=True)
    return work.session.execute(statement).scalar_one_or_none()


# --- saving -------------------------------------------------------------------------------------


def save_draft(
    work: Work,
    *,
    answers: Mapping[str, object],
    repo_id: str | None = None,
    draft_id: str | None = None,
    secret: str | None = None,
    visitor: Visitor = UNKNOWN_NETWORK,
) -> DraftRow:
    """Keep what was typed, mistakes and all: begin a draft for ``repo_id``, or save ``draft_id``.

    ``answers`` replaces all that was kept. Somebody signed in who has begun a draft for that
    repository continues it. A draft that waits for its address to be confirmed has to be sent
    again once it is changed.

    Raises:
        NotFound: no such repository or draft, as far as the caller may know.
        Forbidden: neither a person nor anonymous.
        Conflict: the repository is open to everyone, the caller has access, or it was withdrawn.
        TooLarge, Invalid: more than any form asks for, or not answers at all.
        TooMany: too many drafts or saves this hour; says when to try again.
    """
    typed = as_typed(answers)
    if draft_id is not None:
        draft = open_draft(work, draft_id, secret)
        keep_typed(work, draft, typed, visitor=visitor)
        return row_of(work, draft)
    if repo_id is None:
        raise Invalid("Name the repository, or the draft.", reason="access.which")
    return _begin(work, repo_id, typed, visitor=visitor)


def _begin(work: Work, repo_id: str, typed: Answers, *, visitor: Visitor) -> DraftRow:
    me = accountable(work, "ask for access") if work.actor.known else None
    variant_id = askable(work, repo_id)
    if me is not None:
        lock_applicant(work, me)
        begun = _mine(work, variant_id, lock=True)
        if begun is not None:
            keep_typed(work, begun, typed, visitor=visitor)
            return row_of(work, begun)
    else:
        spend(work, Limited.DRAFT, visitor=visitor)
    secret = new_salt().hex() if me is None else None
    stored = formbook.in_force(
        work, variant_id=variant_id, stage=formbook.stage_of(work, variant_id)
    )
    draft = AccessDraft(
        id=new_id("adr"),
        secret_sha256=hashlib.sha256(secret.encode()).digest() if secret else None,
        person_id=me,
        variant_id=variant_id,
        form_id=formbook.keep(work, stored),
        answers=dict(typed),
        state=DraftState.OPEN,
        created_at=work.now,
        updated_at=work.now,
        expires_at=work.now + DRAFT_KEPT,
    )
    work.session.add(draft)
    return row_of(work, draft, secret=secret)


def keep_typed(work: Work, draft: AccessDraft, typed: Answers, *, visitor: Visitor) -> None:
    """Write new answers into a draft that may still be changed.

    Raises:
        Conflict: it was sent.
        TooMany: it, and others from there, were saved too often this hour.
    """
    if draft.state not in EDITABLE:
        raise Conflict(
            "This draft was sent; what was sent is not changed.",
            reason="access.draft-sent",
            next_step="Write to the reviewers in the thread of your request.",
        )
    if draft.person_id is None:
        spend(work, Limited.SAVE, visitor=visitor)
    if typed != draft.answers:
        draft.answers = dict(typed)
        draft.state = DraftState.OPEN
    draft.updated_at = work.now
    draft.expires_at = max(draft.expires_at, work.now + DRAFT_KEPT)


def discard_draft(work: Work, draft_id: str, *, secret: str | None = None) -> None:
    """Throw a draft away, and everything typed into it.

    Raises:
        NotFound: there is none, or it is somebody else's.
        Conflict: it was sent; a request is withdrawn, not discarded.
    """
    draft = open_draft(work, draft_id, secret)
    if draft.state not in EDITABLE:
        raise Conflict(
            "This draft was sent.", reason="access.draft-sent", next_step="Withdraw the request."
        )
    empty(draft, DraftState.DISCARDED)


def empty(draft: AccessDraft, to: DraftState) -> None:
    """End a draft and forget what was in it: answers, address and secret."""
    draft.state = to
    draft.answers = {}
    draft.address = None
    draft.secret_sha256 = None
