"""The mailed link: it proves an address, makes or finds its person, and sends what they wrote.

Opening the link shows what it would do and changes nothing, since mail programs open links by
themselves; only a second, deliberate step confirms.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from stagerelease.access import formbook
from stagerelease.access.answers import judge
from stagerelease.access.applicants import as_person, person_of
from stagerelease.access.mailing import PURPOSE
from stagerelease.access.moving import lock_applicant
from stagerelease.access.queries import RequestRow
from stagerelease.access.rules import DraftState
from stagerelease.access.sending import send_draft
from stagerelease.access.tables import AccessDraft
from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.identity import links
from stagerelease.kernel.clock import said
from stagerelease.kernel.errors import Conflict, NotFound

SUBJECT = "access_draft:"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What following a link would do: send this request, for this address, until then."""

    draft_id: str
    repo_id: str
    address: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What following a link did. Its caller has proved to be ``person_id`` and may be signed in.

    ``made`` says that the account is new.
    """

    request: RequestRow
    person_id: str
    made: bool


def show_confirmation(work: Work, key: bytes, token: str) -> Confirmation:
    """Return what a mailed link would do; changes nothing.

    Raises:
        Invalid: it is no link of ours. Conflict: it was used, or its time is over.
        Conflict: the draft was changed, sent or thrown away since the mail was sent.
    """
    link = links.open_link(work, key, token, purpose=PURPOSE)
    draft, repo_id = _confirmable(work, link.subject, link.address, lock=False)
    return Confirmation(draft.id, repo_id, draft.address or "", draft.expires_at)


def confirm_address(work: Work, key: bytes, token: str) -> Confirmed:
    """Confirm the address a link was mailed to, and send the draft as its person.

    An account is made when the address has none. The link works once; when this is refused it
    still works, and the draft is kept.

    Raises:
        Invalid: it is no link of ours. Conflict: it was used, or its time is over.
        Conflict: the draft was changed, sent or thrown away since; or the person has access, has a
            request that waits, or may not ask again yet.
        Forbidden: the account of this address is disabled.
        NotFound: the repository is not to be seen any more.
    """
    link = links.use_link(work, key, token, purpose=PURPOSE)
    draft, repo_id = _confirmable(work, link.subject, link.address, lock=True)
    page = formbook.page_of(work, draft.variant_id, repo_id)
    good, wrong = judge(page.form, draft.answers, family=page.family)
    if wrong:
        raise Conflict(
            "The form changed since you sent this, and asks for more now. What you wrote is kept.",
            reason="access.form-changed",
            next_step="Open your draft again, complete it and send it once more.",
            fields=wrong,
        )
    formbook.keep(work, page.stored)  # before the account's log entry locks the log
    name = good.get("name", "")
    person, made = person_of(work, draft.address or "", name=name if isinstance(name, str) else "")
    lock_applicant(work, person.id)
    as_them = as_person(work, person)
    request = send_draft(as_them, draft, page, good, applicant_id=person.id)
    return Confirmed(request, person.id, made)


def _confirmable(
    work: Work, subject: str, address: str | None, *, lock: bool
) -> tuple[AccessDraft, str]:
    """Return the draft that a link is about, and its repository, if it still waits for it."""
    statement = (
        select(AccessDraft, Variant.repo_id)
        .join(Variant, Variant.id == AccessDraft.variant_id)
        .where(AccessDraft.id == subject.removeprefix(SUBJECT))
    )
    if lock:
        statement = statement.with_for_update(key_share=True, of=AccessDraft)
    found = work.session.execute(statement.execution_options(populate_existing=True)).one_or_none()
    if found is None:
        raise NotFound("There is no such draft.", reason="access.draft-unknown")
    draft, repo_id = found
    if draft.state == DraftState.SUBMITTED:
        raise Conflict(
            "This address was confirmed already, and the request was sent.",
            reason="access.confirmed",
            next_step="Sign in with this address to see how it stands.",
        )
    if draft.state != DraftState.UNCONFIRMED or draft.address != address:
        raise Conflict(
            "The draft was changed, or is gone, since this mail was sent.",
            reason="access.draft-changed",
            next_step="Open your draft and send it again: a new mail follows.",
        )
    if draft.expires_at <= work.now:
        raise Conflict(
            f"The address had to be confirmed by {said(draft.expires_at)}.",
            reason="access.draft-expired",
            next_step="Begin a new request.",
        )
    return draft, str(repo_id)
