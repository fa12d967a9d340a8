"""Use cases on forms: which one is asked where, and putting a new version in force.

A version is never changed: a request keeps the id of the form its answers were given to. Where no
form is in force the shipped one is asked; it is written down when the first answer is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Insert, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from stagerelease.access.forms import (
    DEFAULT,
    FAMILY,
    Choice,
    Fieldset,
    Form,
    document_of,
    form_sha256,
    parse_form,
    read_form,
    shipped_form,
)
from stagerelease.access.moving import variant_id_of
from stagerelease.access.tables import AccessForm, AccessFormUse
from stagerelease.catalog import queries as catalog
from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.entitlements import service as entitlements
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import DomainError, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.partners.moving import require_known
from stagerelease.releases import queries as releases
from stagerelease.releases.queries import storable

SHIPPED_VERSION = 1
"""Raised whenever the shipped form changes: rows of older versions stay as they were."""
WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class FormRow:
    """A form version. ``in_force`` says where it is asked, in words, on lists; else empty."""

    id: str
    slug: str
    version: int
    sha256: str
    form: Form
    created_by: str
    created_at: datetime | None
    in_force: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FormPage:
    """What a page that asks for access shows: the form for exactly this repository and caller.

    ``form`` has every choice filled in; ``stored`` is the version as it is kept. ``family`` are
    the repository ids that fields with ``choices_from: family`` offer.
    """

    repo_id: str
    variant_id: str
    stored: FormRow
    form: Form
    family: tuple[str, ...]


# --- reading ------------------------------------------------------------------------------------


def shipped_row() -> FormRow:
    """Return the shipped form as a version; its id follows from its content."""
    form = shipped_form()
    digest = form_sha256(form)
    return FormRow(
        f"frm_{DEFAULT}_{digest[:16]}", DEFAULT, SHIPPED_VERSION, digest, form, "system", None
    )


_FORM = select(
    AccessForm.id,
    AccessForm.slug,
    AccessForm.version,
    AccessForm.sha256,
    AccessForm.document,
    AccessForm.created_by,
    AccessForm.created_at,
)


def _row(row: Any) -> FormRow:
    form_id, slug, version, digest, document, created_by, created_at = row
    return FormRow(form_id, slug, version, digest, read_form(document), created_by, created_at)


def find_form(work: Work, form_id: str | None) -> FormRow | None:
    """Return a form version by its id, the shipped one too; None when there is none."""
    if form_id is None or not storable(form_id):
        return None
    row = work.session.execute(_FORM.where(AccessForm.id == form_id)).one_or_none()
    if row is not None:
        return _row(row)
    shipped = shipped_row()
    return shipped if shipped.id == form_id else None


def in_force(work: Work, *, variant_id: str, stage: str | None) -> FormRow:
    """Return the form asked for a variant whose track is at ``stage``: the most particular one.

    One for this variant and stage wins over one for the variant, that over one for the stage,
    that over one for everything, that over the shipped one.
    """
    use = AccessFormUse
    rows = work.session.execute(
        select(use.form_id, use.variant_id, use.stage).where(
            use.until_at.is_(None),
            or_(use.variant_id == variant_id, use.variant_id.is_(None)),
            or_(use.stage == stage, use.stage.is_(None)),
        )
    ).all()
    if not rows:
        return shipped_row()
    best = max(rows, key=lambda r: (r.variant_id is not None, r.stage is not None))
    return find_form(work, best.form_id) or shipped_row()


def stage_of(work: Work, variant_id: str) -> str | None:
    """Return the stage of a variant's newest weights track, or of its newest track, or None."""
    tracks = releases.list_tracks(work, variant_id=variant_id)
    leading = next((t for t in tracks if t.kind == WEIGHTS), tracks[0] if tracks else None)
    return leading.stage if leading else None


def family_of(work: Work, variant_id: str) -> tuple[str, ...]:
    """Return the other repositories of the family that the caller may know of and are gated."""
    own = next((v for v in catalog.list_variants(work) if v.id == variant_id), None)
    if own is None:
        return ()
    found = []
    for variant in catalog.list_variants(work):
        if variant.family_id == own.family_id and variant.id != variant_id:
            try:
                if entitlements.see(work, work.actor, variant.repo_id).gated:
                    found.append(variant.repo_id)
            except DomainError:
                continue  # hidden from this caller: it must not be offered, nor counted
    return tuple(found)


def filled(form: Form, family: tuple[str, ...]) -> Form:
    """Return a form with the choices that come from the family written in.

    A field that would offer nothing is left out.
    """
    offered = tuple(Choice(name, name) for name in family)
    fieldsets: list[Fieldset] = []
    for fieldset in form.fieldsets:
        fields = tuple(
            replace(f, choices=offered, choices_from="") if f.choices_from == FAMILY else f
            for f in fieldset.fields
            if f.choices_from != FAMILY or offered
        )
        if fields:
            fieldsets.append(replace(fieldset, fields=fields))
    return replace(form, fieldsets=tuple(fieldsets))


def page_of(work: Work, variant_id: str, repo_id: str) -> FormPage:
    """Return the form asked for a variant, filled in for the caller; asks no permission."""
    stored = in_force(work, variant_id=variant_id, stage=stage_of(work, variant_id))
    chooses = any(field.choices_from for field in stored.form.fields)
    family = family_of(work, variant_id) if chooses else ()
    return FormPage(repo_id, variant_id, stored, filled(stored.form, family), family)


def form_for(work: Work, *, repo_id: str | None = None, track_id: str | None = None) -> FormPage:
    """Return the form that an applicant fills in for a repository, or for a track's repository.

    Anonymous callers may ask. Whether the caller may send it now is decided when they do.

    Raises:
        Invalid: not exactly one of the two is given.
        NotFound: there is none, or the caller may not know of it.
        Moved: the name is an alias; says of which repository.
    """
    if (repo_id is None) == (track_id is None):
        raise Invalid("Name the repository or the track, not both.", reason="access.which")
    if track_id is not None:
        track = releases.find_track(work, track_id) if storable(track_id) else None
        if track is None:
            raise entitlements.hidden(track_id)
        repo_id = track.repo_id
    name = repo_id or ""
    if not storable(name):
        raise entitlements.hidden(name)
    try:
        variant = entitlements.see(work, work.actor, name).variant
    except NotFound as error:  # a track's id must not tell the name of what is hidden
        raise entitlements.hidden(track_id or name) from error
    return page_of(work, variant.id, variant.repo_id)


def list_forms(work: Work) -> list[FormRow]:
    """Return every version of every form, newest first, with where each is in force; to staff.

    Raises:
        Unauthenticated, Forbidden: the caller reads no access requests.
    """
    require_known(work.actor)
    require(work.actor, Permission.ACCESS_REQUEST_READ)
    uses = work.session.execute(
        select(AccessFormUse.form_id, Variant.repo_id, AccessFormUse.stage)
        .outerjoin(Variant, Variant.id == AccessFormUse.variant_id)
        .where(AccessFormUse.until_at.is_(None))
    ).all()
    rows = [
        _row(row)
        for row in work.session.execute(
            _FORM.order_by(AccessForm.slug, AccessForm.version.desc(), AccessForm.id)
        )
    ]
    shipped = shipped_row()
    if shipped.id not in {row.id for row in rows}:
        rows.append(shipped)
    everywhere_else = "everywhere else"
    return [
        replace(
            row,
            in_force=tuple(_where(u.repo_id, u.stage) for u in uses if u.form_id == row.id)
            + ((everywhere_else,) if row.id == shipped.id else ()),
        )
        for row in rows
    ]


def _where(repo_id: str | None, stage: str | None) -> str:
    what = repo_id or "everything"
    return f"{what} at the {stage} stage" if stage else what


def show_form(work: Work, slug: str, *, version: int | None = None) -> FormRow:
    """Return one version of a form, the newest when ``version`` is None; to staff.

    Raises:
        Unauthenticated, Forbidden: the caller reads no access requests.
        NotFound: there is no such form or version.
    """
    rows = [row for row in list_forms(work) if row.slug == slug]
    for row in sorted(rows, key=lambda r: r.version, reverse=True):
        if version in (None, row.version):
            return row
    what = f"form {slug!r}" if version is None else f"version {version} of a form {slug!r}"
    raise NotFound(f"There is no {what}.", reason="form.unknown")


# --- changing -----------------------------------------------------------------------------------


def lint_form(source: str) -> Form:
    """Return the form that a YAML or JSON text describes; changes nothing and asks nobody.

    Raises:
        Invalid: it is not a form; ``fields`` names every mistake with its line.
    """
    return parse_form(source)


def keep(work: Work, stored: FormRow) -> str:
    """Write a form version down if it is not yet, whoever else does so too; return its id."""
    values = {
        "id": stored.id,
        "slug": stored.slug,
        "version": stored.version,
        "document": document_of(stored.form),
        "sha256": stored.sha256,
        "created_by": stored.created_by,
        "created_at": stored.created_at or work.now,
    }
    insert: Any = postgresql.insert if work.is_postgres else sqlite.insert
    statement: Insert = insert(AccessForm).values(**values).on_conflict_do_nothing()
    work.session.execute(statement)
    return stored.id


def apply_form(
    work: Work, source: str, *, repo_id: str | None = None, stage: str | None = None
) -> FormRow:
    """Put a form in force: for a repository, a stage, both, or everything when neither is named.

    A source that says the same as the newest version of its form is that version; any other
    becomes the next. What was in force there before ends now; requests keep theirs.

    Raises:
        Unauthenticated, Forbidden: the caller edits no forms.
        Invalid: it is not a form (``fields`` names every mistake with its line), or it takes the
            name of the shipped one and says something else.
        NotFound: there is no such repository.
        Conflict: somebody applied a version at the same moment.
    """
    require(work.actor, Permission.ACCESS_FORM_EDIT)
    form = parse_form(source)
    variant_id = None if repo_id is None else variant_id_of(work, repo_id)
    if stage is not None and not (storable(stage) and 1 <= len(stage) <= 64):
        raise Invalid("A stage is named by 1 to 64 characters.", reason="form.stage")
    stored = _next_version(work, form)
    use = AccessFormUse
    work.session.execute(
        update(use)
        .where(
            use.until_at.is_(None),
            use.variant_id.is_(None) if variant_id is None else use.variant_id == variant_id,
            use.stage.is_(None) if stage is None else use.stage == stage,
        )
        .values(until_at=work.now)
    )
    facts = {"slug": form.slug, "version": stored.version, "repo_id": repo_id, "stage": stage}
    leaf = ledger.append(
        work,
        type="access_form.applied",
        subject=f"access_form:{stored.id}",
        new_state=str(stored.version),
        detail={**facts, "sha256": stored.sha256},
        policy_sha256=stored.sha256,
    )
    work.session.add(
        AccessFormUse(
            id=new_id("afu"),
            form_id=stored.id,
            variant_id=variant_id,
            stage=stage,
            from_at=work.now,
            applied_by=work.actor.id,
            leaf_idx=leaf,
        )
    )
    work.session.flush()
    return replace(stored, in_force=(_where(repo_id, stage),))


def _next_version(work: Work, form: Form) -> FormRow:
    """Return the version that says what ``form`` says: the newest, the shipped, or a new one."""
    shipped, digest = shipped_row(), form_sha256(form)
    if shipped.sha256 == digest:
        keep(work, shipped)
        return shipped
    if form.slug == DEFAULT:
        raise Invalid(
            f"{DEFAULT!r} is the name of the form that comes with the product.",
            reason="form.reserved",
            next_step="Give yours another name in its line 'form:'.",
        )
    row = work.session.execute(
        _FORM.where(AccessForm.slug == form.slug).order_by(AccessForm.version.desc()).limit(1)
    ).one_or_none()
    newest = _row(row) if row else None
    if newest is not None and newest.sha256 == digest:
        return newest
    last = work.session.execute(
        select(func.max(AccessForm.version)).where(AccessForm.slug == form.slug)
    ).scalar_one()
    stored = FormRow(
        new_id("frm"), form.slug, (last or 0) + 1, digest, form, work.actor.id, work.now
    )
    work.session.add(
        AccessForm(
            id=stored.id,
            slug=stored.slug,
            version=stored.version,
            document=document_of(form),
            sha256=digest,
            created_by=work.actor.id,
            created_at=work.now,
        )
    )
    work.session.flush()  # its use refers to it
    return stored
