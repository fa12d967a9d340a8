"""People, organisations, rosters, roles and tokens over JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from stagerelease.erasing.service import erase_person as erase
from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, InstantIn, Out, Paging, paged
from stagerelease.identity import queries, service
from stagerelease.identity.rules import Permission, permissions_of, require

router = APIRouter(prefix="/api/v1", tags=["people"])
Handle = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
DryRun = Annotated[bool, Query(description="Do everything, then undo it.")]
HandlePath = Annotated[str, Path(max_length=64)]


class PersonIn(In):
    """A person to add."""

    handle: Handle
    display_name: Annotated[str, Field(min_length=1, max_length=200)]
    email: Annotated[str, Field(max_length=320)] | None = None
    kind: Literal["human", "service"] = "human"


class PersonOut(Out):
    """A person as staff see them."""

    id: str
    handle: str
    kind: str
    display_name: str
    email: str | None
    disabled_at: Instant | None


class RoleIn(In):
    """A role to give."""

    role: Annotated[str, Field(max_length=32)]
    ends_at: InstantIn | None = None


class OrganisationIn(In):
    """An organisation to add."""

    slug: Handle
    name: Annotated[str, Field(min_length=1, max_length=200)]


class OrganisationOut(Out):
    """An organisation."""

    id: str
    slug: str
    name: str


class MemberIn(In):
    """A roster line to add."""

    person: Annotated[str, Field(max_length=64)]
    role: Literal["partner_admin", "partner_member"] = "partner_member"
    starts_at: InstantIn | None = None
    ends_at: InstantIn | None = None


class RosterOut(Out):
    """A line of a roster; ``current`` says whether it counts at the instant asked about."""

    id: str
    person_id: str
    handle: str
    display_name: str
    role: str
    starts_at: Instant
    ends_at: Instant | None
    current: bool


class TokenIn(In):
    """A token to make."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    person: Annotated[str, Field(max_length=64)] | None = None
    scopes: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=8)] = ["all"]
    expires_at: InstantIn | None = None


class TokenOut(Out):
    """A token as listed."""

    id: str
    person: str
    name: str
    display: str
    scopes: list[str]
    created_at: Instant
    expires_at: Instant | None
    last_used_at: Instant | None
    revoked_at: Instant | None


class NewTokenOut(Out):
    """A token just made. ``token`` is shown this once."""

    id: str
    token: str


class MeOut(Out):
    """Who the caller is here, and what they may do."""

    id: str
    name: str
    roles: list[str]
    organisations: list[str]
    permissions: list[str]


class EraseIn(In):
    """Why a person is erased. It is kept for good and names nobody."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class ErasedOut(Out):
    """What stands for the person now, and what ended with the account."""

    id: str
    pseudonym: str
    grants_revoked: int
    requests_withdrawn: int
    signatures_kept: int


class Done(Out):
    """It is done."""

    ok: bool = True


@router.get("/me")
def me(begin: Begin) -> MeOut:
    """Tell the caller who they are here and what they may do."""
    with begin(read_only=True) as work:
        actor = work.actor
        return MeOut(
            id=actor.id,
            name=actor.name,
            roles=sorted(actor.roles),
            organisations=sorted(actor.organisations),
            permissions=sorted(permissions_of(actor)),
        )


@router.get("/people")
def list_people(
    request: Request, response: Response, begin: Begin, page: Paging
) -> list[PersonOut]:
    """List people by handle."""
    with begin(read_only=True) as work:
        require(work.actor, Permission.PEOPLE_READ)
        rows = queries.list_people(work)
    part = paged(request, response, rows, page, lambda row: row.handle)
    return [PersonOut.model_validate(row) for row in part]


@router.post("/people", status_code=201)
def create_person(body: PersonIn, begin: Begin) -> PersonOut:
    """Add a person or a service account."""
    with begin() as work:
        person = service.create_person(work, **body.model_dump())
        return PersonOut.model_validate(queries.load_person(work, person.id))


@router.post("/people/{handle}/disable")
def disable_person(handle: HandlePath, begin: Begin) -> Done:
    """Stop an account and all its tokens."""
    with begin() as work:
        service.disable_person(work, handle)
        return Done()


@router.post("/people/{handle}/erase")
def erase_person(
    handle: HandlePath, body: EraseIn, begin: Begin, dry_run: DryRun = False
) -> ErasedOut:
    """End an account for good and let go of everything that says whose it was."""
    with begin(dry_run=dry_run) as work:
        return ErasedOut.model_validate(erase(work, handle, reason=body.reason))


@router.post("/people/{handle}/roles", status_code=201)
def assign_role(handle: HandlePath, body: RoleIn, begin: Begin) -> Done:
    """Give a role."""
    with begin() as work:
        service.assign_role(work, person=handle, role=body.role, ends_at=body.ends_at)
        return Done()


@router.delete("/people/{handle}/roles/{role}")
def end_role(handle: HandlePath, role: Annotated[str, Path(max_length=32)], begin: Begin) -> Done:
    """Take a role away."""
    with begin() as work:
        service.end_role(work, person=handle, role=role)
        return Done()


@router.get("/organisations")
def list_organisations(
    request: Request, response: Response, begin: Begin, page: Paging
) -> list[OrganisationOut]:
    """List organisations by slug."""
    with begin(read_only=True) as work:
        require(work.actor, Permission.PEOPLE_READ)
        rows = queries.list_organisations(work)
    part = paged(request, response, rows, page, lambda row: row.slug)
    return [OrganisationOut.model_validate(row) for row in part]


@router.post("/organisations", status_code=201)
def create_organisation(body: OrganisationIn, begin: Begin) -> OrganisationOut:
    """Add an organisation."""
    with begin() as work:
        row = service.create_organisation(work, slug=body.slug, name=body.name)
        return OrganisationOut.model_validate(row)


@router.get("/organisations/{slug}/members")
def list_roster(
    slug: HandlePath, begin: Begin, at: InstantIn | None = None, everything: bool = False
) -> list[RosterOut]:
    """List the roster now, at a past or future instant, or every line there ever was."""
    with begin(read_only=True) as work:
        rows = service.list_roster(work, slug, at=at, everything=everything)
        return [RosterOut.model_validate(row) for row in rows]


@router.post("/organisations/{slug}/members", status_code=201)
def add_member(slug: HandlePath, body: MemberIn, begin: Begin) -> Done:
    """Put a person on a roster."""
    with begin() as work:
        service.add_member(work, organisation=slug, **body.model_dump())
        return Done()


@router.delete("/organisations/{slug}/members/{handle}")
def end_membership(
    slug: HandlePath, handle: HandlePath, begin: Begin, at: InstantIn | None = None
) -> Done:
    """Take a person off a roster, now or at a later instant."""
    with begin() as work:
        service.end_membership(work, organisation=slug, person=handle, at=at)
        return Done()


@router.get("/tokens")
def list_tokens(
    request: Request, response: Response, begin: Begin, page: Paging, everyone: bool = False
) -> list[TokenOut]:
    """List one's own tokens, or (``people:read``) everyone's; never their text."""
    with begin(read_only=True) as work:
        if everyone:
            require(work.actor, Permission.PEOPLE_READ)
        else:
            require(work.actor, Permission.TOKEN_MANAGE_OWN)
        rows = queries.list_tokens(work, person_id=None if everyone else work.actor.id)
    part = paged(request, response, rows, page, lambda row: row.id)
    return [TokenOut.model_validate(row) for row in part]


@router.post("/tokens", status_code=201)
def create_token(body: TokenIn, response: Response, begin: Begin) -> NewTokenOut:
    """Make a token, for oneself unless ``person`` says otherwise."""
    response.headers["Cache-Control"] = "no-store"
    with begin() as work:
        row, text = service.create_token(
            work,
            person=body.person or work.actor.id,
            name=body.name,
            scopes=body.scopes,
            expires_at=body.expires_at,
        )
        return NewTokenOut(id=row.id, token=text)


@router.delete("/tokens/{token_id}")
def revoke_token(token_id: Annotated[str, Path(max_length=40)], begin: Begin) -> Done:
    """End a token now."""
    with begin() as work:
        service.revoke_token(work, token_id)
        return Done()
