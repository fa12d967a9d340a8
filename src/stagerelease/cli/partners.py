"""Agreements, signatures and grants on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stagerelease.cli.box import Form, Opened, instant, opened
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Invalid
from stagerelease.partners import service
from stagerelease.partners.texts import SHIPPED, shipped_text

agreement = typer.Typer(help="Agreements, their versions, and signing them.", no_args_is_help=True)
signature = typer.Typer(help="Signatures on agreements.", no_args_is_help=True)
grant = typer.Typer(help="Grants of access.", no_args_is_help=True)
GROUPS = {"agreement": agreement, "signature": signature, "grant": grant}

Reason = Annotated[str, typer.Option(help="Why; those concerned can read it.")]
GRANT_COLUMNS = [
    "id",
    "state",
    "organisation_id",
    "person_id",
    "track_id",
    "audience",
    "permissions",
    "valid_until",
]
SIGNATURE_COLUMNS = [
    "id",
    "state",
    "agreement",
    "version",
    "organisation_id",
    "person_id",
    "signed_at",
    "countersigned_at",
]


# --- agreement -----------------------------------------------------------------------------------


@agreement.command("create")
def agreement_create(slug: str, title: Annotated[str, typer.Option(help="Title to show.")]) -> None:
    """Name an agreement; release plans refer to it by SLUG."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(service.create_agreement(work, slug=slug, title=title))


@agreement.command("draft")
def agreement_draft(
    slug: str,
    file: Annotated[Path | None, typer.Option(help="Markdown text to draft from.")] = None,
    shipped: Annotated[
        str | None, typer.Option(help=f"Start from a template: {', '.join(SHIPPED)}.")
    ] = None,
    duo: Annotated[list[str] | None, typer.Option(help="DUO code, e.g. NCU; repeatable.")] = None,
    minor: Annotated[bool, typer.Option("--minor", help="Changes nothing of substance.")] = False,
    countersigned: Annotated[
        bool, typer.Option("--countersigned", help="Counts once the publisher has signed too.")
    ] = False,
) -> None:
    """Draft the next version, from a file or from a shipped template."""
    text = _draft_text(file, shipped)
    with opened() as box, box.works.begin(box.actor) as work:
        row = service.draft_version(
            work,
            agreement=slug,
            text=text,
            duo_codes=duo or [],
            material=not minor,
            needs_countersignature=countersigned,
        )
        box.out.show(row)


def _draft_text(file: Path | None, shipped: str | None) -> str:
    if (file is None) == (shipped is None):
        raise Invalid("Name one source: --file or --shipped.", reason="agreement.source")
    if shipped is not None:
        if shipped not in SHIPPED:
            raise Invalid(
                f"The shipped templates are {', '.join(SHIPPED)}.", reason="agreement.source"
            )
        return shipped_text(shipped)
    try:
        return Path(str(file)).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{file} cannot be read as UTF-8 text: {error}.", reason="agreement.source"
        ) from error


@agreement.command("publish")
def agreement_publish(
    slug: str,
    version: int,
    reconsent: Annotated[
        str | None, typer.Option(help="By when holders sign a material version again.")
    ] = None,
) -> None:
    """Put a draft in force; the version in force until now is superseded."""
    with opened() as box, box.works.begin(box.actor) as work:
        row = service.publish_numbered(work, slug, version, reconsent_until=instant(reconsent))
        box.out.show(row)
        outdated = service.list_outdated(work, slug)
        if outdated and row.reconsent_until is not None:
            box.out.say(
                f"{len(outdated)} signature(s) on older versions count until "
                f"{iso(row.reconsent_until)}; those parties are told to sign again."
            )


@agreement.command("duo")
def agreement_duo() -> None:
    """List the Data Use Ontology codes that an agreement can carry."""
    with opened() as box:
        box.out.show(list(service.DUO_CODES.values()), columns=["code", "term", "label", "meaning"])


@agreement.command("pdf")
def agreement_pdf(
    slug: str,
    version: Annotated[int | None, typer.Argument(help="The one in force, if left out.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Where to write it.")] = None,
) -> None:
    """Write a version of an agreement as PDF."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            document = service.version_pdf(work, slug, version)
        _write(box, document, output)


@agreement.command("diff")
def agreement_diff(slug: str, old: int, new: int) -> None:
    """Show what changes from one version to another."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            found = service.diff_versions(work, slug, old, new)
        if box.out.form is not Form.TABLE:
            box.out.show(found)
            return
        sys.stdout.write("\n".join(found.lines) + "\n")


@signature.command("pdf")
def signature_pdf(
    signature_id: str,
    output: Annotated[Path | None, typer.Option("--output", help="Where to write it.")] = None,
) -> None:
    """Write the signed agreement as PDF, with its signature page."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            document = service.signed_pdf(work, signature_id)
        _write(box, document, output)


@signature.command("receipt")
def signature_receipt(
    signature_id: str,
    output: Annotated[Path | None, typer.Option("--output", help="Where to write it.")] = None,
) -> None:
    """Write the receipt: the record, its log entry and the proof."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            document = service.signature_receipt(work, signature_id, vkey=box.signer.vkey)
        _write(box, document, output)


def _write(box: Opened, document: service.Document, output: Path | None) -> None:
    path = output or Path(document.name)
    path.write_bytes(document.content)
    box.out.say(f"Wrote {path} ({len(document.content):,} bytes).")


@agreement.command("list")
def agreement_list() -> None:
    """List agreement versions."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(
            service.list_agreements(work),
            columns=["agreement", "version", "state", "title", "material", "text_sha256", "id"],
        )


@agreement.command("show")
def agreement_show(
    slug: str,
    version: Annotated[int | None, typer.Argument(help="The one in force, if left out.")] = None,
) -> None:
    """Print a version's text; its facts go to stderr."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        row, text = service.show_version(work, slug, version)
        box.out.say(
            f"'{row.title}' version {row.version}, {row.state.replace('_', ' ')}; "
            f"id {row.id}; sha256 {row.text_sha256}"
        )
        sys.stdout.write(text)


@agreement.command("sign")
def agreement_sign(
    slug: str,
    sha256: Annotated[str, typer.Option(help="SHA-256 of the text you read ('agreement show').")],
    name: Annotated[str, typer.Option(help="Your legal name.")],
    title: Annotated[str, typer.Option(help="Your title or position.")],
    organisation: Annotated[str | None, typer.Option(help="Sign for this organisation.")] = None,
    authorised: Annotated[
        bool, typer.Option("--i-am-authorised", help="I am authorised to bind the party.")
    ] = False,
    consent: Annotated[
        bool, typer.Option("--i-consent", help="I agree to sign electronically.")
    ] = False,
    until: Annotated[str | None, typer.Option(help="End of the signature (UTC).")] = None,
) -> None:
    """Sign the version in force, as yourself (STAGERELEASE_TOKEN)."""
    with opened() as box, box.works.begin(box.actor) as work:
        row, _ = service.show_version(work, slug)
        box.out.show(
            service.sign(
                work,
                version_id=row.id,
                text_sha256=sha256,
                typed_name=name,
                typed_title=title,
                authorised_to_bind=authorised,
                consents_electronically=consent,
                organisation=organisation,
                valid_until=instant(until),
            )
        )


# --- signature -----------------------------------------------------------------------------------


@signature.command("list")
def signature_list() -> None:
    """List signatures: your own and your organisations', to staff all."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(service.list_signatures(work), columns=SIGNATURE_COLUMNS)


@signature.command("countersign")
def signature_countersign(signature_id: str) -> None:
    """Sign for the publisher; a signature that waited for this is in force from now on."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(service.countersign(work, signature_id), columns=SIGNATURE_COLUMNS)


@signature.command("terminate")
def signature_terminate(signature_id: str, reason: Reason) -> None:
    """End a signature; grants that rest on it are suspended."""
    with opened() as box, box.works.begin(box.actor) as work:
        row = service.terminate_signature(work, signature_id, reason)
        box.out.show(row, columns=SIGNATURE_COLUMNS)


# --- grant ---------------------------------------------------------------------------------------


@grant.command("issue")
def grant_issue(
    track_id: str,
    purpose: Annotated[str, typer.Option(help="What for, 1 to 2,000 characters.")],
    until: Annotated[str, typer.Option(help="End, at most two years on, e.g. 2026-12-31.")],
    organisation: Annotated[str | None, typer.Option(help="Grantee: an organisation.")] = None,
    person: Annotated[str | None, typer.Option(help="Grantee: a person's handle.")] = None,
    permission: Annotated[
        list[str] | None, typer.Option(help="download or infer; repeatable.")
    ] = None,
    audience: Annotated[str | None, typer.Option(help="Stage to admit at.")] = None,
    renew: Annotated[str | None, typer.Option(help="The grant that this renews.")] = None,
) -> None:
    """Let an organisation or a person in to a track."""
    valid_until = instant(until)
    if valid_until is None:
        raise Invalid("A grant needs an end.", reason="grant.dates")
    with opened() as box, box.works.begin(box.actor) as work:
        row = service.issue_grant(
            work,
            track_id=track_id,
            organisation=organisation,
            person=person,
            permissions=permission or ["download"],
            purpose=purpose,
            audience=audience,
            valid_until=valid_until,
            renewed_from=renew,
        )
        box.out.show(row)


@grant.command("list")
def grant_list(
    track: Annotated[str | None, typer.Option(help="Only on this track.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
) -> None:
    """List grants: your own and your organisations', to staff all."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        rows = service.list_grants(work, track_id=track, state=state)
        box.out.show(rows, columns=GRANT_COLUMNS)


@grant.command("show")
def grant_show(grant_id: str) -> None:
    """Show a grant, whether it counts now, and everything that happened to it."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(service.show_grant(work, grant_id))


@grant.command("suspend")
def grant_suspend(grant_id: str, reason: Reason) -> None:
    """Suspend a grant now; one person is enough."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(service.suspend_grant(work, grant_id, reason=reason), columns=GRANT_COLUMNS)


@grant.command("resume")
def grant_resume(grant_id: str) -> None:
    """Consent to resume a suspended grant; two people are needed."""
    with opened() as box, box.works.begin(box.actor) as work:
        row = service.resume_grant(work, grant_id)
        box.out.show(row, columns=GRANT_COLUMNS)
        if row.state != "active":
            box.out.say("Your consent is recorded; one more person has to consent.")


@grant.command("revoke")
def grant_revoke(grant_id: str, reason: Reason) -> None:
    """End a grant for good; its holder is asked to destroy what was delivered."""
    with opened() as box, box.works.begin(box.actor) as work:
        row = service.revoke_grant(work, grant_id, reason=reason)
        box.out.show(row, columns=GRANT_COLUMNS)
        files = len(service.list_deliveries(work, grant_id))
        box.out.say(f"{files} delivery(ies) are listed for the holder to declare destroyed.")
