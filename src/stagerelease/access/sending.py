"""Sends drafts: at once for who is signed in, by a mailed link for who is not.

A draft that cannot be sent is stored all the same, and the outcome says what keeps it. Following
the link (``confirming``) ends here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stagerelease.access import formbook, queries
from stagerelease.access.abuse import UNKNOWN_NETWORK, Limited, Visitor
from stagerelease.access.answers import Answer, Answers, as_typed, judge
from stagerelease.access.asking import askable, find_waiting, send
from stagerelease.access.drafting import DraftRow, empty, keep_typed, open_draft, row_of
from stagerelease.access.formbook import FormPage
from stagerelease.access.forms import ADDRESS_KEY
from stagerelease.access.mailing import mail_confirmation
from stagerelease.access.moving import lock_applicant
from stagerelease.access.queries import RequestRow
from stagerelease.access.rules import CONFIRM_WITHIN, MAIL_AGAIN_AFTER, DraftState, Origin
from stagerelease.access.tables import AccessDraft
from stagerelease.access.throttle import spend
from stagerelease.db.work import Work
from stagerelease.kernel.clock import said
from stagerelease.kernel.errors import Conflict, DomainError, FieldError, Invalid, TooMany
from stagerelease.releases.humans import accountable


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
    draft = open_draft(work, draft_id, secret)
    if draft.state == DraftState.SUBMITTED:
        request = queries.find_request(work, draft.request_id or "")
        return Outcome(replace(row_of(work, draft), wrong=()), request=request)
    if answers is not None:
        keep_typed(work, draft, as_typed(answers), visitor=visitor)
    row = row_of(work, draft)
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
    return Outcome(replace(row_of(work, draft), wrong=()), request=request)


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
            f"Your request for {page.repo_id} of {said(waiting.submitted_at)} still waits.",
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
    return Outcome(row_of(work, draft), confirming=True)
