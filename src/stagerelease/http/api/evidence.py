"""Evidence over JSON: types, submission, decisions and imports; files are in the module beside."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

from stagerelease.evidence import service
from stagerelease.http.api.evidence_files import AttachmentOut, Id
from stagerelease.http.begin import Begin, BeginPublic
from stagerelease.http.wire import In, Instant, InstantIn, Out, Page, Paging, origin_of
from stagerelease.releases import service as releases
from stagerelease.releases.retracting import Taken

router = APIRouter(tags=["evidence"])

DryRun = Annotated[bool, Query(description="Do everything, then undo it.")]
Number = StrictInt | StrictFloat
Handle = Annotated[str, Field(max_length=64)]


class EvidenceIn(In):
    """A measurement with its conditions, or a finding with its verdict."""

    type: Annotated[str, Field(max_length=64)]
    metric: Annotated[str, Field(max_length=64)]
    title: Annotated[str, Field(max_length=2000)]
    subject_sha256: Annotated[str, Field(max_length=200)]
    source: Annotated[str, Field(max_length=20_000)]
    fact_status: Annotated[str, Field(max_length=64)]
    measured_at: InstantIn
    value: Number | None = None
    unit: Annotated[str, Field(max_length=200)] = ""
    n: StrictInt | None = None
    interval_low: Number | None = None
    interval_high: Number | None = None
    interval_level: Number | None = None
    conditions: Annotated[dict[str, StrictStr | Number], Field(max_length=60)] = {}
    companions: Annotated[dict[str, Number], Field(max_length=20)] = {}
    verdict: Annotated[str, Field(max_length=64)] | None = None
    finding: str | None = None
    caveat: str = ""
    valid_until: InstantIn | None = None
    author_name: Annotated[str, Field(max_length=2000)] = ""
    public: StrictBool = False
    organisation: Annotated[str, Field(max_length=64)] | None = None
    authors: Annotated[list[Handle], Field(max_length=50)] = []
    supersedes: Annotated[str, Field(max_length=64)] | None = None

    def new(self) -> service.NewEvidence:
        """Return it as the service takes it."""
        values = self.model_dump(
            exclude={
                *("organisation", "authors", "supersedes", "draft"),
                *("interval_low", "interval_high"),
            }
        )
        return service.NewEvidence(
            **values, interval=service.read_interval(self.interval_low, self.interval_high)
        )

    def placed(self) -> dict[str, Any]:
        """Return whose it is and what it supersedes."""
        return {
            "organisation": self.organisation,
            "authors": self.authors,
            "supersedes": self.supersedes,
        }


class SubmissionIn(EvidenceIn):
    """Evidence to write down; ``draft`` keeps it from being submitted at once."""

    draft: StrictBool = False


class ReasonIn(In):
    """Why; those concerned can read it."""

    reason: Annotated[str, Field(min_length=1, max_length=4000)]


class NoteIn(In):
    """A remark, if there is one to make."""

    reason: Annotated[str, Field(max_length=4000)] = ""
    seen: Annotated[str, Field(max_length=64, description="The `seen_sha256` you read.")] | None = (
        None
    )


class ShownIn(In):
    """Whether all may see it."""

    shown: StrictBool


class ImportIn(In):
    """A file of evidence, and what entries get that do not say it themselves."""

    format: Literal["json", "csv", "model-index"]
    text: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    subject_sha256: Annotated[str, Field(max_length=200)] | None = None
    measured_at: InstantIn | None = None
    source: Annotated[str, Field(max_length=2000)] | None = None
    fact_status: Annotated[str, Field(max_length=64)] | None = None
    organisation: Annotated[str, Field(max_length=64)] | None = None
    unit: Literal["percent", "fraction"] | None = None

    def defaults(self) -> service.Defaults:
        """Return what entries get that do not say it themselves."""
        return service.Defaults(**self.model_dump(exclude={"format", "text"}))


class EvidenceOut(Out):
    """A piece of evidence. ``value`` is null for a finding, whose verdict has a rank."""

    id: str
    type: str
    title: str
    metric: str
    value: float | None
    unit: str
    n: int | None
    interval_low: float | None
    interval_high: float | None
    interval_level: float | None
    conditions: dict[str, str | float]
    companions: dict[str, float]
    verdict: str | None
    finding: str | None
    caveat: str
    subject_sha256: str
    subject_kind: str
    fact_status: str
    established: bool
    source: str
    measured_at: Instant
    valid_until: Instant | None
    organisation_id: str | None
    author_name: str
    public: bool
    public_approved_at: Instant | None
    supersedes_id: str | None
    state: str
    state_reason: str
    created_by: str
    created_at: Instant
    submitted_at: Instant | None
    accepted_at: Instant | None
    accepted_by: str | None


class PrecisionOut(Out):
    """What a detector's alarm is worth where ``base_rate`` of the texts are machine-made."""

    base_rate: float
    percent: float
    stated: bool
    basis: str


class EventOut(Out):
    """Something that happened to it."""

    from_state: str | None
    to_state: str
    reason: str
    actor_id: str
    at: Instant
    leaf_idx: int


class EvidencePageOut(EvidenceOut):
    """Evidence with what stands beside its claim, its history and its files."""

    authors: list[str]
    organisation: str | None
    precision: list[PrecisionOut]
    beside: list[str]
    superseded_by: str | None
    events: list[EventOut]
    attachments: list[AttachmentOut]
    seen_sha256: str


class TakenOut(Out):
    """What became of it, and how many unapplied promotion requests were re-opened."""

    evidence_id: str
    state: str
    reopened: int


def _taken(taken: Taken) -> TakenOut:
    return TakenOut(evidence_id=taken.evidence_id, state=taken.state, reopened=len(taken.reopened))


def _page_out(page: service.EvidencePage) -> EvidencePageOut:
    return EvidencePageOut(
        **EvidenceOut.model_validate(page.evidence).model_dump(),
        authors=list(page.authors),
        organisation=page.organisation,
        precision=[PrecisionOut.model_validate(one) for one in page.precision],
        beside=list(page.beside),
        superseded_by=page.superseded_by,
        events=[EventOut.model_validate(one) for one in page.events],
        attachments=[AttachmentOut.model_validate(one) for one in page.attachments],
        seen_sha256=page.seen_sha256,
    )


def next_page(request: Request, response: Response, page: Page, last: str) -> None:
    """Set the absolute link to what comes after ``last``."""
    url = request.url.include_query_params(limit=page.limit, after=last)
    link = f"{origin_of(request)}{request.url.path}?{url.query}"
    response.headers["Link"] = f'<{link}>; rel="next"'


# --- reading -------------------------------------------------------------------------------------


@router.get("/api/v1/evidence-types")
def evidence_types(begin: BeginPublic) -> dict[str, dict[str, Any]]:
    """Show the JSON Schema (2020-12) of each type of evidence."""
    with begin(read_only=True):
        return service.evidence_types()


@router.get("/api/v1/evidence")
def list_evidence(
    request: Request,
    response: Response,
    begin: BeginPublic,
    page: Paging,
    state: Annotated[str | None, Query(max_length=64)] = None,
    type: Annotated[str | None, Query(max_length=64)] = None,
    metric: Annotated[str | None, Query(max_length=64)] = None,
    subject: Annotated[str | None, Query(max_length=64)] = None,
    organisation: Annotated[str | None, Query(max_length=64)] = None,
) -> list[EvidenceOut]:
    """List the evidence one may see, newest first."""
    wanted = service.Wanted(state, type, metric, subject, organisation)
    with begin(read_only=True) as work:
        rows = service.list_evidence(work, wanted, limit=page.limit + 1, after=page.after)
    if len(rows) > page.limit:
        next_page(request, response, page, rows[page.limit - 1].id)
    return [EvidenceOut.model_validate(row) for row in rows[: page.limit]]


@router.get("/api/v1/evidence/{evidence_id}")
def show_evidence(evidence_id: Id, begin: BeginPublic) -> EvidencePageOut:
    """Show a piece of evidence, what its figures mean, its history and its files."""
    with begin(read_only=True) as work:
        return _page_out(service.show_evidence(work, evidence_id))


# --- submitting ----------------------------------------------------------------------------------


@router.post("/api/v1/evidence", status_code=201)
def submit_new(body: SubmissionIn, begin: Begin, dry_run: DryRun = False) -> EvidenceOut:
    """Write evidence down and submit it, or keep it as a draft."""
    write = service.draft if body.draft else service.hand_in
    with begin(dry_run=dry_run) as work:
        return EvidenceOut.model_validate(write(work, body.new(), **body.placed()))


@router.post("/api/v1/evidence/import", status_code=201)
def import_evidence(body: ImportIn, begin: Begin, dry_run: DryRun = False) -> list[EvidenceOut]:
    """Write every entry of a file down as a draft, or none."""
    with begin(quiet=True) as work:
        service.begin_import(work)
    defaults = body.defaults()
    entries = service.read_file(body.format, body.text, defaults)  # slow: nobody waits for it
    with begin(dry_run=dry_run) as work:
        rows = service.write_entries(work, entries, defaults)
        return [EvidenceOut.model_validate(row) for row in rows]


@router.put("/api/v1/evidence/{evidence_id}")
def edit_draft(evidence_id: Id, body: EvidenceIn, begin: Begin) -> EvidenceOut:
    """Replace the words of a draft."""
    with begin() as work:
        return EvidenceOut.model_validate(
            service.edit(work, evidence_id, body.new(), **body.placed())
        )


@router.post("/api/v1/evidence/{evidence_id}/submit")
def submit_draft(evidence_id: Id, begin: Begin, dry_run: DryRun = False) -> EvidenceOut:
    """Hand a draft in."""
    with begin(dry_run=dry_run) as work:
        return EvidenceOut.model_validate(service.submit(work, evidence_id))


# --- deciding ------------------------------------------------------------------------------------


@router.post("/api/v1/evidence/{evidence_id}/accept")
def accept(evidence_id: Id, body: NoteIn, begin: Begin, dry_run: DryRun = False) -> EvidenceOut:
    """Accept submitted evidence, so that it counts for gates."""
    with begin(dry_run=dry_run) as work:
        row = releases.accept_evidence(work, evidence_id, reason=body.reason, seen=body.seen)
        return EvidenceOut.model_validate(row)


@router.post("/api/v1/evidence/{evidence_id}/reject")
def reject(evidence_id: Id, body: ReasonIn, begin: Begin, dry_run: DryRun = False) -> EvidenceOut:
    """Refuse submitted evidence with a reason that its authors see."""
    with begin(dry_run=dry_run) as work:
        return EvidenceOut.model_validate(service.reject(work, evidence_id, reason=body.reason))


@router.post("/api/v1/evidence/{evidence_id}/dispute")
def dispute(evidence_id: Id, body: ReasonIn, begin: Begin, dry_run: DryRun = False) -> TakenOut:
    """Call accepted evidence into question; requests that used it are re-opened."""
    with begin(dry_run=dry_run) as work:
        return _taken(releases.dispute_evidence(work, evidence_id, reason=body.reason))


@router.post("/api/v1/evidence/{evidence_id}/resolve")
def resolve(evidence_id: Id, body: ReasonIn, begin: Begin, dry_run: DryRun = False) -> EvidenceOut:
    """End a dispute in favour of the evidence; the other end is to retract it."""
    with begin(dry_run=dry_run) as work:
        return EvidenceOut.model_validate(service.resolve(work, evidence_id, reason=body.reason))


@router.post("/api/v1/evidence/{evidence_id}/retract")
def retract(evidence_id: Id, body: ReasonIn, begin: Begin, dry_run: DryRun = False) -> TakenOut:
    """End evidence that turned out wrong; requests that used it are re-opened."""
    with begin(dry_run=dry_run) as work:
        return _taken(releases.retract_evidence(work, evidence_id, reason=body.reason))


@router.post("/api/v1/evidence/{evidence_id}/public")
def approve_public(
    evidence_id: Id, body: ShownIn, begin: Begin, dry_run: DryRun = False
) -> EvidenceOut:
    """Let accepted evidence marked public be shown to all, or stop that."""
    with begin(dry_run=dry_run) as work:
        return EvidenceOut.model_validate(
            service.approve_public(work, evidence_id, shown=body.shown)
        )
