"""Use cases on drafts: save what was typed, mistakes and all, and send it when it is right.

A visitor without an account holds a secret that opens their draft; it is shown once and stored
hashed. Sending such a draft mails a link to the address in it (``confirming`` takes it from
there). Somebody who is signed in needs neither.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select

from stagerelease.access import formbook, queries
from stagerelease.access.abuse import UNKNOWN_NETWORK, Limited, Visitor
from stagerelease.access.answers import Answer, Answers, as_typed, judge
from stagerelease.access.asking import askable, find_waiting, send
from stagerelease.access.formbook import FormPage
from stagerelease.access.forms import ADDRESS_KEY
from stagerelease.access.mailing import mail_confirmation
from stagerelease.access.moving import lock_applicant
from stagerelease.access.queries import RequestRow
from stagerelease.access.rules import (
    CONFIRM_WITHIN,
    DRAFT_KEPT,
    MAIL_AGAIN_AFTER,
    DraftState,
    Origin,
)
from stagerelease.access.tables import AccessDraft
from stagerelease.access.throttle import spend
from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, DomainError, FieldError, Invalid, NotFound, TooMany
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of sending a draft; the draft is stored in every case.

    ``request`` is set when it was sent, ``confirming`` when a link was mailed to the draft's
    address, now or a moment ago. Otherwise ``refused`` says why not: ``Invalid`` with a sentence
    for each wrong field, ``TooMany`` with when to try again, or ``Conflict``.
    """

    draft: DraftRow
    request: RequestRow | None = None
    confirming: bool = False
    refused: DomainError | None = None

    def check(self) -> Outcome:
        """Return this outcome; raise its refusal, if it has one, once the draft is committed."""
        if self.refused is not None:
            raise self.refused
        return self


def _unknown(draft_id: str) -> NotFound:
    return NotFound(
        f"There is no draft {draft_id[:60]!r}, or it is not yours, or it was sent already.",
        reason="access.draft-unknown",
        next_step="Begin a new one; if you sent it, look at your requests.",
    )


# --- opening ------------------------------------------------------------------------------------


def _open(work: Work, draft_id: str, secret: str | None, *, lock: bool = True) -> AccessDraft:
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
            f"This draft was kept until {iso(draft.expires_at)} and is gone.",
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


def _row(work: Work, draft: AccessDraft, *, secret: str | None = None) -> DraftRow:
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
    return _row(work, _open(work, draft_id, secret, lock=False))


def find_draft(work: Work, *, repo_id: str) -> DraftRow | None:
    """Return the draft that somebody who is signed in has begun for a repository, or None."""
    if not work.actor.is_human or not storable(repo_id):
        return None
    variant_id = work.session.execute(
        select(Variant.id).where(Variant.repo_id == repo_id)
    ).scalar_one_or_none()
    draft = _mine(work, variant_id, lock=False) if variant_id is not None else None
    return _row(work, draft) if draft is not None else None


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
        draft = _open(work, draft_id, secret)
        _keep(work, draft, typed, visitor=visitor)
        return _row(work, draft)
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
            _keep(work, begun, typed, visitor=visitor)
            return _row(work, begun)
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
    return _row(work, draft, secret=secret)


def _keep(work: Work, draft: AccessDraft, typed: Answers, *, visitor: Visitor) -> None:
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
    draft = _open(work, draft_id, secret)
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


# --- sending ------------------------------------------------------------------------------------


def submit_draft(
    work: Work,
    draft_id: str,
    *,
    secret: str | None = None,
    answers: Mapping[str, object] | None = None,
    visitor: Visitor = UNKNOWN_NETWORK,
) -> Outcome:
    """Send a draft, after saving ``answers`` into it when they are given.

    Signed in: a request waits from now on. Anonymous: a link is mailed to the address in the
    answers, and the request waits once it is followed; whether that address has an account changes
    nothing that this answers. Sending twice sends once. What was typed is stored even when it
    cannot be sent: look at ``Outcome.refused``.

    Raises:
        NotFound, TooLarge, Invalid: see ``save_draft``.
    """
    draft = _open(work, draft_id, secret)
    if draft.state == DraftState.SUBMITTED:
        request = queries.find_request(work, draft.request_id or "")
        return Outcome(replace(_row(work, draft), wrong=()), request=request)
    if answers is not None:
        _keep(work, draft, as_typed(answers), visitor=visitor)
    row = _row(work, draft)
    good, wrong = judge(row.page.form, row.answers, family=row.page.family)
    if wrong:
        return Outcome(row, refused=_invalid(wrong))
    draft.form_id = formbook.keep(work, row.page.stored)
    if draft.person_id is not None:
        return _send_own(work, draft, row, good)
    return _send_mail(work, draft, row, str(good[ADDRESS_KEY]), visitor=visitor)


def _invalid(wrong: tuple[FieldError, ...]) -> Invalid:
    n = len(wrong)
    return Invalid(
        f"{n} answer{'s are' if n > 1 else ' is'} not complete yet. Your draft is saved.",
        reason="access.fields",
        next_step="Correct each, and send it again.",
        fields=wrong,
    )


def _send_own(work: Work, draft: AccessDraft, row: DraftRow, good: Answers) -> Outcome:
    me = accountable(work, "ask for access")
    lock_applicant(work, me)
    try:
        request = send_draft(work, draft, row.page, good, applicant_id=me)
    except Conflict as error:
        return Outcome(row, refused=error)
    return Outcome(replace(_row(work, draft), wrong=()), request=request)


def send_draft(
    work: Work,
    draft: AccessDraft,
    page: FormPage,
    good: Mapping[str, Answer],
    *,
    applicant_id: str,
) -> RequestRow:
    """Make the request that a draft asks for, by the caller, and end the draft.

    Raises:
        NotFound: the caller may not know of the repository any more.
        Conflict: it is open, they have access or a request that waits, or may not ask yet.
    """
    askable(work, page.repo_id)
    waiting = find_waiting(work, page.variant_id, applicant_id)
    if waiting is not None:
        raise Conflict(
            f"Your request for {page.repo_id} of {iso(waiting.submitted_at)} still waits.",
            reason="access.waits",
            next_step="Add to it in its thread, or withdraw it and send this one.",
        )
    request = send(work, page.stored, page.variant_id, applicant_id, good, origin=Origin.FORM)
    empty(draft, DraftState.SUBMITTED)
    draft.request_id = request.id
    return request


def _send_mail(
    work: Work, draft: AccessDraft, row: DraftRow, address: str, *, visitor: Visitor
) -> Outcome:
    again = draft.state == DraftState.UNCONFIRMED and draft.address == address
    if again and draft.mailed_at is not None and work.now < draft.mailed_at + MAIL_AGAIN_AFTER:
        return Outcome(row, confirming=True)
    try:
        spend(work, Limited.MAIL, visitor=visitor, address=address)
    except TooMany as error:
        return Outcome(row, refused=error)
    draft.state = DraftState.UNCONFIRMED
    draft.address = address
    draft.mailed_at = work.now
    draft.expires_at = work.now + CONFIRM_WITHIN
    mail_confirmation(work, draft.id, address, repo_id=row.repo_id)
    return Outcome(_row(work, draft), confirming=True)
