"""Use cases of applicants: ask for access, answer a question, take the request back, look at it.

``submit`` is the short way of callers who cannot be shown a form (the Hub's ask-access): it takes
what there is and tells the applicant what is missing. ``submit_whole`` takes only what answers the
form; the form's own way, with drafts, is in ``drafting``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stagerelease.access import formbook, queries
from stagerelease.access.answers import (
    Answer,
    answers_sha256,
    as_typed,
    judge,
    matched,
    open_fields,
)
from stagerelease.access.formbook import FormRow
from stagerelease.access.interests import conflicts_of
from stagerelease.access.moving import (
    as_seen,
    check_room,
    enter,
    event_as_seen,
    load_for,
    lock_applicant,
    lock_request,
    new_request,
    note,
    read_back,
    reads_all,
    tell,
    variant_id_of,
)
from stagerelease.access.queries import ConflictRow, NoteRow, RequestEventRow, RequestRow
from stagerelease.access.rules import (
    MAX_MESSAGE,
    OPEN,
    Origin,
    State,
    Status,
    check_answers,
    check_may_reapply,
    check_move,
    is_over,
)
from stagerelease.db.work import Work
from stagerelease.entitlements import service as entitlements
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid
from stagerelease.partners.moving import require_known
from stagerelease.releases.humans import accountable
from stagerelease.releases.queries import storable
from stagerelease.releases.rules import check_text


@dataclass(frozen=True, slots=True)
class RequestPage:
    """A request and every step it took.

    ``form`` is the version its answers were given to (None: before there were forms), ``open``
    the keys of required fields without a good answer. ``notes`` and ``conflicts`` are for staff;
    to others they are empty.
    """

    request: RequestRow
    events: tuple[RequestEventRow, ...]
    form: FormRow | None = None
    open: tuple[str, ...] = ()
    notes: tuple[NoteRow, ...] = ()
    conflicts: tuple[ConflictRow, ...] = ()


def submit(
    work: Work, *, repo_id: str, answers: Mapping[str, str], origin: Origin = Origin.API
) -> RequestRow:
    """Ask for access to a repository's current release; while one waits, that one is returned.

    Answers are kept under the keys of the form in force where their names fit, else under their
    own; required fields may be left open, and the applicant is told which are.

    Raises:
        NotFound: there is no such repository, or the caller may not know of it.
        Forbidden: not a human.
        Conflict: it is open to everyone (``access.not-gated``), the caller has access
            (``access.granted``), it was withdrawn (``access.withdrawn``), or a rejection says when
            they may ask again (``access.rejected``).
        Invalid: the answers are too many or too long.
    """
    me, variant_id, waiting = _asking(work, repo_id)
    if waiting is not None:
        return as_seen(work, waiting)
    kept = check_answers(answers)
    page = formbook.page_of(work, variant_id, repo_id)
    return send(work, page.stored, variant_id, me, matched(page.stored.form, kept), origin=origin)


def submit_whole(work: Work, *, repo_id: str, answers: Mapping[str, object]) -> RequestRow:
    """Ask for access with every answer the form in force needs; while one waits, return that one.

    Names of answers are the form's keys or labels.

    Raises:
        Invalid: ``fields`` has a sentence for each answer that is missing or wrong.
        NotFound, Forbidden, Conflict, TooLarge: see ``submit``.
    """
    me, variant_id, waiting = _asking(work, repo_id)
    if waiting is not None:
        return as_seen(work, waiting)
    page = formbook.page_of(work, variant_id, repo_id)
    good, wrong = judge(page.form, matched(page.form, as_typed(answers)), family=page.family)
    if wrong:
        raise Invalid(
            "Some answers are missing or not as they must be; nothing was sent.",
            reason="access.fields",
            next_step="Look at the form at /api/v1/access-forms/asked, or begin a draft: it keeps "
            "what you have.",
            fields=wrong,
        )
    return send(work, page.stored, variant_id, me, good, origin=Origin.API)


def _asking(work: Work, repo_id: str) -> tuple[str, str, RequestRow | None]:
    """Return who asks, for which variant, and their request that waits, if one does."""
    require(work.actor, Permission.ACCESS_REQUEST_SUBMIT)
    if work.actor.is_human:
        lock_applicant(work, work.actor.id)
    me = accountable(work, "ask for access")
    variant_id = askable(work, repo_id)
    return me, variant_id, find_waiting(work, variant_id, me)


def send(
    work: Work,
    form: FormRow,
    variant_id: str,
    applicant_id: str,
    answers: Mapping[str, Answer],
    *,
    origin: Origin,
) -> RequestRow:
    """Write a request that waits from now on, with its event, its log entry and its notice."""
    form_id = formbook.keep(work, form)
    request = new_request(work, variant_id, applicant_id, answers, origin=origin, form_id=form_id)
    row = read_back(work, request)
    tell(work, "submitted", row, staff=True, form=form.slug)
    tell(work, "received", row, applicant=True, missing=_missing(work, form, variant_id, answers))
    note(
        work,
        request,
        event="submitted",
        before=None,
        detail={
            "answers_sha256": answers_sha256(answers),
            "variant": variant_id,
            "form": form_id,
            "form_sha256": form.sha256,
        },
    )
    return read_back(work, request)


def _missing(work: Work, form: FormRow, variant_id: str, answers: Mapping[str, Answer]) -> str:
    """Return, as a sentence behind another, which answers the form still lacks; "" when none."""
    family = formbook.family_of(work, variant_id)
    keys = open_fields(form.form, answers, family=family)
    labels = [field.label for field in form.form.fields if field.key in keys]
    return f" Answers are missing: {'; '.join(labels)}." if labels else ""


def find_waiting(work: Work, variant_id: str, applicant_id: str) -> RequestRow | None:
    """Return a person's request for a variant that waits; None when they may ask now.

    Raises:
        Conflict: they have access by an earlier request, or may not ask again yet.
    """
    latest = queries.find_latest(work, variant_id=variant_id, applicant_id=applicant_id)
    if latest is None or is_over(latest.state, latest.expires_at, work.now):
        return None
    if latest.status is Status.PENDING:
        return latest
    if latest.status is Status.ACCEPTED:
        raise Conflict(
            f"Your request was accepted; your grant is {latest.grant_state}.",
            reason="access.granted",
            next_step="Read and sign the agreement that your mail links to."
            if latest.grant_state == "pending"
            else f"Look at the grant: {latest.grant_id}.",
        )
    if latest.status is Status.REJECTED:
        check_may_reapply(
            work.now, reason=latest.reason, may_reapply_after=latest.may_reapply_after
        )
    return None


def askable(work: Work, repo_id: str) -> str:
    """Return the variant of a gated repository that the caller may know of and not have.

    Raises:
        NotFound, Conflict: see ``submit``.
    """
    if not storable(repo_id):
        raise entitlements.hidden(repo_id)
    try:
        entitled = entitlements.see(work, work.actor, repo_id)
    except entitlements.Moved as moved:
        entitled = entitlements.see(work, work.actor, moved.repo_id)
    decision = entitled.decision
    if not entitled.gated:
        raise Conflict(
            f"{entitled.variant.repo_id} is open to everyone: there is nothing to ask for.",
            reason="access.not-gated",
        )
    if decision.allowed:
        raise Conflict(
            f"You have access to {entitled.variant.repo_id} already.", reason="access.granted"
        )
    if decision.reason == "withdrawn":
        raise Conflict(decision.sentence, reason="access.withdrawn", next_step=decision.next_step)
    return entitled.variant.id


def reply(
    work: Work,
    request_id: str,
    *,
    message: str,
    answers: Mapping[str, object] | None = None,
) -> RequestRow:
    """Answer a reviewer, or tell them something, in the thread of one's own open request.

    A returned request is submitted again. ``answers`` replaces those answers it names, judged
    against the form the request was given to; the others stay.

    Raises:
        NotFound: there is no such request, or the caller may not know of it.
        Forbidden: it is somebody else's.
        Conflict: it does not wait any more, or its thread is full.
        Invalid: the message is empty or too long, or an answer is wrong (``fields`` names each).
    """
    row = _own(work, request_id)
    message = check_text(message, "message", limit=MAX_MESSAGE)
    row, request = lock_request(work, row.id)
    if row.state not in OPEN:
        raise Conflict(
            f"The request is {row.status}; nobody reads its thread any more.",
            reason=f"access.{row.status}",
            next_step="Send a new request if you still need access.",
        )
    check_room(work, row.id)
    detail: dict[str, object] = {}
    if answers:
        request.answers = {**row.answers, **_corrected(work, row, answers)}
        detail["answers_sha256"] = answers_sha256(request.answers)
    before = row.state
    if before == State.RETURNED:
        enter(work, request, State.SUBMITTED)
    assignee = [row.assignee_id] if row.assignee_id else []
    tell(work, "answered", row, staff=not assignee, people=assignee)
    note(work, request, event="answered", before=before, comment=message, detail=detail)
    return as_seen(work, read_back(work, request))


def _corrected(work: Work, row: RequestRow, given: Mapping[str, object]) -> dict[str, Answer]:
    typed = as_typed(given)
    stored = formbook.find_form(work, row.form_id)
    if stored is None:
        return {**check_answers({k: str(v) for k, v in typed.items()})}
    family = formbook.family_of(work, row.variant_id)
    kept = {k: v for k, v in row.answers.items() if stored.form.find(k)}
    good, wrong = judge(stored.form, {**kept, **typed}, family=family)
    named = [error for error in wrong if error.field in typed]
    if named:
        raise Invalid(
            "Some answers are not as they must be; nothing was changed.",
            reason="access.fields",
            fields=named,
        )
    return {k: good.get(k, v) for k, v in typed.items()}


def _own(work: Work, request_id: str) -> RequestRow:
    row = load_for(work, request_id, Permission.ACCESS_REQUEST_SUBMIT)
    if row.applicant_id != work.actor.id:
        raise Forbidden(
            "Only the applicant does this with a request.",
            reason="access.not-applicant",
            next_step="Ask a question, or reject it, instead.",
        )
    return row


def withdraw(work: Work, request_id: str) -> RequestRow:
    """Take back one's own request that still waits.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Forbidden: it is somebody else's.
        Conflict: it does not wait any more.
    """
    row, request = lock_request(work, _own(work, request_id).id)
    check_move(row.state, State.WITHDRAWN, status=row.status)
    enter(work, request, State.WITHDRAWN)
    tell(work, "withdrawn", row, applicant=True, staff=True)
    note(work, request, event="withdrawn", before=row.state)
    return as_seen(work, read_back(work, request))


def request_page(work: Work, request_id: str) -> RequestPage:
    """Return a request with its steps to its applicant; to staff with notes and conflicts too.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: there is none, or the caller may not know of it.
    """
    row = load_for(work, request_id, None)
    stored = formbook.find_form(work, row.form_id)
    family = formbook.family_of(work, row.variant_id) if stored else ()
    staff = reads_all(work) and row.applicant_id != work.actor.id
    return RequestPage(
        request=as_seen(work, row),
        events=tuple(event_as_seen(work, e) for e in queries.request_events(work, row)),
        form=stored,
        open=open_fields(stored.form, row.answers, family=family) if stored else (),
        notes=tuple(queries.list_notes(work, row.id)) if staff else (),
        conflicts=conflicts_of(work, row) if staff else (),
    )


show_request = request_page


def list_requests(
    work: Work,
    *,
    repo_id: str | None = None,
    status: Status | None = None,
    limit: int | None = None,
    after: str | None = None,
    newest_first: bool = True,
) -> list[RequestRow]:
    """Return requests, newest first unless said otherwise: all to staff, to others their own.

    At most ``limit``, those behind the request whose id is ``after``.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: a repository is named that staff do not have.
    """
    require_known(work.actor)
    options: dict[str, Any] = {
        "status": status,
        "limit": limit,
        "after": after,
        "newest_first": newest_first,
    }
    if authorize(work.actor, Permission.ACCESS_REQUEST_READ).allowed:
        variant_id = None if repo_id is None else variant_id_of(work, repo_id)
        return queries.list_requests(work, variant_id=variant_id, **options)
    mine = work.actor.id
    if repo_id is None:
        rows = queries.list_requests(work, applicant_id=mine, **options)
        return [as_seen(work, row) for row in rows]
    own = queries.list_requests(work, applicant_id=mine)
    variant = next((row.variant_id for row in own if row.repo_id == repo_id), None)
    if variant is None:
        return []
    rows = queries.list_requests(work, applicant_id=mine, variant_id=variant, **options)
    return [as_seen(work, row) for row in rows]
