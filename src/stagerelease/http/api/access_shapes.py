"""What the access face answers with: requests, drafts, the queue, forms."""

from __future__ import annotations

from typing import Any, Self

from stagerelease.access import service
from stagerelease.access.forms import document_of
from stagerelease.http.wire import Instant, Out

Answers = dict[str, str | bool | list[str]]


class FieldWrong(Out):
    """A field that keeps a draft from being sent, and what is wrong with it."""

    field: str
    sentence: str


class RequestOut(Out):
    """An access request."""

    id: str
    repo_id: str
    handle: str
    display_name: str
    status: str
    state: str
    answers: Answers
    submitted_at: Instant
    decided_at: Instant | None
    reason: str | None
    may_reapply_after: Instant | None
    grant_id: str | None
    grant_state: str | None
    form_id: str | None
    origin: str
    assignee: str | None
    expires_at: Instant | None
    version: int


class RequestEventOut(Out):
    """One step of a request; ``by`` is ``applicant``, ``staff`` or ``system``."""

    from_state: str | None
    to_state: str
    kind: str
    by: str
    actor_id: str
    comment: str
    at: Instant
    leaf_idx: int


class NoteOut(Out):
    """A private note."""

    id: str
    author: str
    text: str
    at: Instant


class ConflictOut(Out):
    """A conflict of interest, declared or computed."""

    handle: str
    reason: str
    declared: bool
    at: Instant | None


class FormOut(Out):
    """A version of a form."""

    id: str
    slug: str
    version: int
    sha256: str
    in_force: list[str]
    document: dict[str, Any]

    @classmethod
    def of(cls, row: service.FormRow) -> Self:
        """Shape a form version."""
        return cls(
            id=row.id,
            slug=row.slug,
            version=row.version,
            sha256=row.sha256,
            in_force=list(row.in_force),
            document=document_of(row.form),
        )


class RequestPageOut(Out):
    """An access request with its steps; notes and conflicts only to staff."""

    request: RequestOut
    events: list[RequestEventOut]
    form: FormOut | None
    open: list[str]
    notes: list[NoteOut]
    conflicts: list[ConflictOut]

    @classmethod
    def of(cls, page: service.RequestPage) -> Self:
        """Shape a request's page."""
        return cls(
            request=RequestOut.model_validate(page.request),
            events=[RequestEventOut.model_validate(event) for event in page.events],
            form=FormOut.of(page.form) if page.form else None,
            open=list(page.open),
            notes=[NoteOut.model_validate(note) for note in page.notes],
            conflicts=[ConflictOut.model_validate(conflict) for conflict in page.conflicts],
        )


class DecisionTimesOut(Out):
    """How long decisions took; nulls where there were none."""

    days: int
    count: int
    median_seconds: int | None
    p90_seconds: int | None
    sentence: str


class QueuedOut(Out):
    """A request in the queue."""

    request: RequestOut
    age_seconds: int

    @classmethod
    def of(cls, row: service.Queued) -> Self:
        """Shape a line of the queue."""
        return cls(request=RequestOut.model_validate(row.request), age_seconds=row.age_seconds)


class QueueOut(Out):
    """A page of the queue; ``next`` is the ``after`` of the page behind it."""

    requests: list[QueuedOut]
    next: str | None
    waiting: dict[str, int]
    times: DecisionTimesOut


class AskedFormOut(Out):
    """The form an applicant fills in for a repository, and how long answers take."""

    repo_id: str
    form_id: str
    slug: str
    version: int
    form: dict[str, Any]
    times: DecisionTimesOut | None


class DraftOut(Out):
    """A draft as its author sees it; ``secret`` once, on the answer that began it."""

    id: str
    state: str
    repo_id: str
    answers: Answers
    wrong: list[FieldWrong]
    form_id: str
    address: str | None
    created_at: Instant
    updated_at: Instant
    expires_at: Instant
    request_id: str | None
    version: int
    secret: str | None

    @classmethod
    def of(cls, row: service.DraftRow) -> Self:
        """Shape a draft."""
        return cls(
            id=row.id,
            state=row.state,
            repo_id=row.repo_id,
            answers=row.answers,
            wrong=[FieldWrong.model_validate(error) for error in row.wrong],
            form_id=row.page.stored.id,
            address=row.address,
            created_at=row.created_at,
            updated_at=row.updated_at,
            expires_at=row.expires_at,
            request_id=row.request_id,
            version=row.version,
            secret=row.secret,
        )


class OutcomeOut(Out):
    """What became of sending a draft: a request, or a mail that waits to be read."""

    draft: DraftOut
    request: RequestOut | None
    confirming: bool

    @classmethod
    def of(cls, outcome: service.Outcome) -> Self:
        """Shape an outcome that is no refusal."""
        return cls(
            draft=DraftOut.of(outcome.draft),
            request=RequestOut.model_validate(outcome.request) if outcome.request else None,
            confirming=outcome.confirming,
        )


class ConfirmationOut(Out):
    """What following a mailed link would do."""

    draft_id: str
    repo_id: str
    address: str
    expires_at: Instant


class ConfirmedOut(Out):
    """What following a mailed link did."""

    request: RequestOut
    made: bool
