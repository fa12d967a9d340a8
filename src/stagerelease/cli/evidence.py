"""Evidence and coordination records on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stagerelease.cli.box import instant, opened
from stagerelease.evidence import service
from stagerelease.kernel.errors import Invalid
from stagerelease.releases import service as releases

app = typer.Typer(help="Evidence that release decisions rest on.", no_args_is_help=True)
coordination = typer.Typer(
    help="What other developers did, and what talks with them have come to.",
    no_args_is_help=True,
)
GROUPS = {"evidence": app, "coordination": coordination}

Reason = Annotated[str, typer.Option(help="Why; those concerned can read it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would come; keep nothing.")]
COLUMNS = ["id", "state", "type", "metric", "value", "unit", "verdict", "fact_status", "title"]
RECORD_COLUMNS = ["id", "kind", "status", "developer", "claim", "happened_on", "fact_status"]
PIECE = 1 << 20
_SUFFIXES = {".json": "json", ".csv": "csv", ".md": "model-index"}


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{file} cannot be read as UTF-8 text: {error}.", reason="evidence.file"
        ) from error


@app.command("types")
def evidence_types(
    name: Annotated[str | None, typer.Argument(help="One type; all if left out.")] = None,
) -> None:
    """Print the JSON Schema of a type of evidence."""
    schemas = service.evidence_types()
    if name is not None and name not in schemas:
        raise Invalid(f"The types of evidence are {', '.join(schemas)}.", reason="evidence.type")
    with opened() as box:
        box.out.show(schemas if name is None else schemas[name])


@app.command("submit")
def submit(
    file: Annotated[
        Path | None, typer.Argument(help="JSON object as 'evidence types' says; - is stdin.")
    ] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Keep it as a draft for now.")] = False,
    id: Annotated[str | None, typer.Option(help="Submit this draft instead of a file.")] = None,
) -> None:
    """Submit evidence from FILE, or a draft by its --id."""
    if (file is None) == (id is None):
        raise Invalid("Name a file or the --id of a draft.", reason="evidence.source")
    text = _read(file) if file is not None else ""
    with opened() as box, box.works.begin(box.actor) as work:
        if id is not None:
            row = service.submit(work, id)
        else:
            row = service.submit_text(work, text=text, as_draft=draft)
        box.out.show(row)


@app.command("list")
def list_evidence(
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    type: Annotated[str | None, typer.Option(help="Only of this type.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only about this SHA-256.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    after: Annotated[str | None, typer.Option(help="Go on after this id.")] = None,
) -> None:
    """List evidence, newest first."""
    wanted = service.Wanted(state=state, type=type, subject=subject)
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        rows = service.list_evidence(work, wanted, limit=limit, after=after)
        box.out.show(rows, columns=COLUMNS)


@app.command("show")
def show(evidence_id: str) -> None:
    """Show evidence, what its figures mean, its history and its files."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        page = service.show_evidence(work, evidence_id)
        box.out.show(page)
        for sentence in page.beside:
            box.out.say(sentence)


@app.command("accept")
def accept(
    evidence_id: str, reason: Annotated[str, typer.Option(help="A remark, if any.")] = ""
) -> None:
    """Accept submitted evidence, so that it counts for gates."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(releases.accept_evidence(work, evidence_id, reason=reason), columns=COLUMNS)


@app.command("reject")
def reject(evidence_id: str, reason: Reason) -> None:
    """Refuse submitted evidence with a reason that its authors see."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(service.reject(work, evidence_id, reason=reason), columns=COLUMNS)


@app.command("dispute")
def dispute(evidence_id: str, reason: Reason) -> None:
    """Call accepted evidence into question; requests that used it are re-opened."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(releases.dispute_evidence(work, evidence_id, reason=reason))


@app.command("resolve")
def resolve(evidence_id: str, reason: Reason) -> None:
    """End a dispute in favour of the evidence; the other end is to retract it."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(service.resolve(work, evidence_id, reason=reason), columns=COLUMNS)


@app.command("retract")
def retract(evidence_id: str, reason: Reason) -> None:
    """End evidence that turned out wrong; requests that used it are re-opened."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(releases.retract_evidence(work, evidence_id, reason=reason))


@app.command("publish")
def publish(
    evidence_id: str,
    hide: Annotated[bool, typer.Option("--hide", help="Stop showing it to all.")] = False,
) -> None:
    """Let accepted evidence marked public be shown to all."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(service.approve_public(work, evidence_id, shown=not hide), columns=COLUMNS)


@app.command("import")
def import_evidence(
    file: Annotated[Path, typer.Argument(help="JSON, CSV or a model card; - is stdin.")],
    format: Annotated[
        str | None, typer.Option(help="json, csv or model-index; else by the file's name.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="SHA-256, where none is said.")] = None,
    measured_at: Annotated[str | None, typer.Option(help="Date, where none is said.")] = None,
    source: Annotated[str | None, typer.Option(help="Source, where none is said.")] = None,
    fact_status: Annotated[
        str | None, typer.Option(help="verified, reported, computed or recalled.")
    ] = None,
    organisation: Annotated[str | None, typer.Option(help="Whose evidence it is.")] = None,
    unit: Annotated[
        str | None, typer.Option(help="percent or fraction: the unit of shares in a card.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Import evidence as drafts: the whole file or nothing."""
    named = format or _SUFFIXES.get(file.suffix.lower(), "json")
    defaults = service.Defaults(
        subject_sha256=subject,
        measured_at=instant(measured_at),
        source=source,
        fact_status=fact_status,
        organisation=organisation,
        unit=unit,
    )
    entries = service.read_file(named, _read(file), defaults)
    with opened() as box, box.works.begin(box.actor, dry_run=dry_run) as work:
        rows = service.write_entries(work, entries, defaults)
        box.out.show(rows, columns=COLUMNS)
        box.out.say(
            f"{len(rows)} draft(s) {'would be' if dry_run else 'were'} written; submit each when "
            "it is ready."
        )


@app.command("attach")
def attach(
    evidence_id: str,
    file: Annotated[Path, typer.Argument(help="File to attach.")],
    name: Annotated[str | None, typer.Option(help="Name to keep it under.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Digest it must have.")] = None,
) -> None:
    """Attach a file to your draft or submitted evidence."""
    filename = name or file.name
    with opened() as box:
        with box.works.begin(box.actor, quiet=True) as work:
            service.begin_attaching(work, evidence_id, filename=filename, sha256=sha256)
        try:
            with (
                service.Receiver(box.blobs, limit=box.settings.max_attachment_bytes) as receiver,
                file.open("rb") as reader,
            ):
                while piece := reader.read(PIECE):
                    receiver.write(piece)
                stored = receiver.finish(sha256)
        except OSError as error:
            raise Invalid(f"{file} cannot be read: {error}.", reason="evidence.file") from error
        with box.works.begin(box.actor) as work:
            box.out.show(
                service.note_attached(
                    work, box.blobs, evidence_id, filename=filename, stored=stored
                )
            )


# --- coordination --------------------------------------------------------------------------------


@coordination.command("add")
def coordination_add(
    family: str,
    developer: Annotated[str, typer.Option(help="Who.")],
    claim: Annotated[str, typer.Option(help="What they say or did.")],
    kind: Annotated[str, typer.Option(help="replication, contact, similar_release or disclosure.")],
    on: Annotated[str, typer.Option(help="When: 2019-08-22, 2019-08 or 2019.")],
    source: Annotated[str, typer.Option(help="Where that is written.")],
    fact_status: Annotated[str, typer.Option(help="verified, reported, computed or recalled.")],
    status: Annotated[str, typer.Option(help="Where talks stand.")] = "noted",
    size: Annotated[int | None, typer.Option(help="Parameters of their model.")] = None,
    contacted: Annotated[str | None, typer.Option(help="The day they were contacted.")] = None,
    window_ends: Annotated[str | None, typer.Option(help="End of the agreed window.")] = None,
    note: Annotated[str, typer.Option(help="A remark, if any.")] = "",
) -> None:
    """Record what another developer did or was told."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(
            service.add_coordination(
                work,
                family_id=family,
                developer=developer,
                claim=claim,
                kind=kind,
                happened_on=on,
                source=source,
                fact_status=fact_status,
                status=status,
                size_parameters=size,
                contacted_on=contacted,
                window_ends_at=instant(window_ends),
                note=note,
            )
        )


@coordination.command("list")
def coordination_list(
    family: Annotated[str | None, typer.Option(help="Only about this family.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    after: Annotated[str | None, typer.Option(help="Go on after this id.")] = None,
) -> None:
    """List coordination records, newest first."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        rows = service.list_records(work, family_id=family, limit=limit, after=after)
        box.out.show(rows, columns=RECORD_COLUMNS)


@coordination.command("show")
def coordination_show(record_id: str) -> None:
    """Show a record and its history."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(service.show_record(work, record_id))


@coordination.command("update")
def coordination_update(
    record_id: str,
    status: Annotated[str | None, typer.Option(help="Where talks stand now.")] = None,
    contacted: Annotated[str | None, typer.Option(help="The day they were contacted.")] = None,
    window_ends: Annotated[str | None, typer.Option(help="End of the agreed window.")] = None,
    source: Annotated[str | None, typer.Option(help="Where that is written.")] = None,
    fact_status: Annotated[
        str | None, typer.Option(help="verified, reported, computed or recalled.")
    ] = None,
    note: Annotated[str, typer.Option(help="A remark, if any.")] = "",
) -> None:
    """Record what talks have come to; the history keeps what was."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(
            service.update_coordination(
                work,
                record_id,
                status=status,
                contacted_on=contacted,
                window_ends_at=instant(window_ends),
                source=source,
                fact_status=fact_status,
                note=note,
            )
        )
