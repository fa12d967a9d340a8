"""Access forms over JSON. Parse, call one use case, shape the answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from stagerelease.access import service
from stagerelease.access.forms import document_of
from stagerelease.http.api.access_shapes import AskedFormOut, DecisionTimesOut, FormOut
from stagerelease.http.begin import Begin, BeginPublic
from stagerelease.http.wire import In

router = APIRouter(prefix="/api/v1/access-forms", tags=["access"])

Slug = Annotated[str, Path(max_length=64)]


class FormIn(In):
    """A form as YAML or JSON text."""

    source: Annotated[str, Field(min_length=1, max_length=65_536)]


class ApplyFormIn(FormIn):
    """A form, and where it is asked from now on; everywhere when neither is named."""

    repo_id: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    stage: Annotated[str | None, Field(min_length=1, max_length=64)] = None


@router.get("")
def list_forms(begin: Begin) -> list[FormOut]:
    """List every version of every form, and where each is in force."""
    with begin(read_only=True) as work:
        return [FormOut.of(row) for row in service.list_forms(work)]


@router.post("", status_code=201)
def apply_form(
    body: ApplyFormIn,
    begin: Begin,
    dry_run: Annotated[bool, Query(description="Do everything, then undo it.")] = False,
) -> FormOut:
    """Put a form in force; one that says something new becomes the next version."""
    with begin(dry_run=dry_run) as work:
        row = service.apply_form(work, body.source, repo_id=body.repo_id, stage=body.stage)
        return FormOut.of(row)


@router.post("/lint")
def lint_form(body: FormIn, begin: Begin) -> dict[str, Any]:
    """Answer with the form as it is understood, or with every mistake and its line."""
    with begin(read_only=True):
        pass  # the caller is known; nothing is held while the text is read
    return document_of(service.lint_form(body.source))


@router.get("/asked")
def asked_form(
    begin: BeginPublic, repo_id: Annotated[str, Query(min_length=1, max_length=200)]
) -> AskedFormOut:
    """Show anybody who may know of a repository the form that asks for access to it."""
    with begin(read_only=True) as work:
        page = service.form_for(work, repo_id=repo_id)
        times = service.decision_times(work) if page.form.median_line else None
    return AskedFormOut(
        repo_id=page.repo_id,
        form_id=page.stored.id,
        slug=page.stored.slug,
        version=page.stored.version,
        form=document_of(page.form),
        times=DecisionTimesOut.model_validate(times) if times else None,
    )


@router.get("/{slug}")
def show_form(
    slug: Slug, begin: Begin, version: Annotated[int | None, Query(ge=0, le=1_000_000)] = None
) -> FormOut:
    """Show a version of a form, the newest unless said otherwise."""
    with begin(read_only=True) as work:
        return FormOut.of(service.show_form(work, slug, version=version))
