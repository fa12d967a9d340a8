"""People with their roles; organisations with their rosters."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import Request, Response

from stagerelease.db.work import Work
from stagerelease.erasing.service import erase_person, is_erased
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.steps import (
    Act,
    after_refusal,
    desk_router,
    needed,
    take,
    take_grave,
    typed_name,
    wrong,
)
from stagerelease.http.pages.forms import Sent, Typed, end_of_day
from stagerelease.http.pages.frame import page
from stagerelease.identity import queries as people
from stagerelease.identity import rosters
from stagerelease.identity import service as identity
from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role, authorize, require
from stagerelease.kernel.errors import DomainError
from stagerelease.partners import service as partners

router = desk_router("/staff")
ROWS = 50
GIVEN = tuple(role for role in Role if not role.startswith("partner_"))
PLACES = [("partner_member", "Member"), ("partner_admin", "Administrator")]
NOTICES = {
    "added": "The account is there. Give it a role, or put it on a roster.",
    "given": "The role counts from now on.",
    "taken": "The role is taken away.",
    "stopped": "The account is stopped, and every token of it.",
    "erased": "The person is erased. What they decided stands under this name.",
    "organisation": "The organisation is there. Put people on its roster.",
    "member": "The roster has a new line.",
    "left": "They are off the roster.",
    "revoked": "Every grant of the organisation has ended.",
}


# --- people --------------------------------------------------------------------------------------


@router.get("/people")
def list_people(request: Request, begin: BeginPage, q: str = "", after: str = "") -> Response:
    """List accounts by handle."""
    return _people(request, begin, q=q, after=after)


def _people(
    request: Request,
    begin: Any,
    *,
    q: str = "",
    after: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    named = q.strip().lower()[:100]
    with begin(read_only=True) as work:
        require(work.actor, Permission.PEOPLE_READ)
        found = [
            row
            for row in people.list_people(work)
            if row.handle > after and named in f"{row.handle} {row.display_name}".lower()
        ]
        rows = found[:ROWS]
        roles = {row.id: sorted(people.roles_now(work, row.id)) for row in rows}
        organisations = people.list_organisations(work)
        manages = authorize(work.actor, Permission.PEOPLE_MANAGE).allowed
    fields = ("handle", "display_name", "email", "slug", "name")
    return page(
        request,
        "desk/people.html",
        rows=rows,
        roles=roles,
        organisations=organisations,
        manages=manages,
        q=named,
        older=f"/staff/people?after={rows[-1].handle}" if len(found) > ROWS else "",
        newer="/staff/people" if after else "",
        **after_refusal(refusal, typed, *fields),
    )


@router.post("/people")
def add_person(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Add an account."""

    def act(work: Work) -> str:
        handle = needed(sent, "handle", "Give a handle, such as ada.")
        identity.create_person(
            work,
            handle=handle,
            display_name=needed(sent, "display_name", "Give the name others read."),
            email=sent.get("email") or None,
            kind="service" if sent.ticked("service") else "human",
        )
        return f"/staff/people/{handle}?done=added#done"

    again = partial(_people, request, begin, typed=sent)
    return take(begin, Permission.PEOPLE_MANAGE, act, then=str, again=again)


@router.get("/people/{handle}")
def show_person(request: Request, begin: BeginPage, handle: str, done: str = "") -> Response:
    """Show an account with its roles and places on rosters."""
    return _person(request, begin, handle, done=done)


def _person(
    request: Request,
    begin: Any,
    handle: str,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.PEOPLE_READ)
        row = people.load_person(work, handle)
        roles = people.roles_now(work, row.id)
        places = [
            (people.load_organisation(work, organisation), role, ends)
            for organisation, role, ends in people.memberships_now(work, row.id)
        ]
        manages = authorize(work.actor, Permission.PEOPLE_MANAGE).allowed
    return page(
        request,
        "desk/person.html",
        row=row,
        roles=roles,
        places=places,
        manages=manages,
        gone=is_erased(row),
        free=[(r.value, r.value.replace("_", " ").capitalize()) for r in GIVEN if r not in roles],
        permissions={r: sorted(ROLE_PERMISSIONS[Role(r)]) for r in roles},
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal, typed, "role", "ends", "typed", "erased", "reason"),
    )


def _person_step(
    request: Request, begin: Any, handle: str, sent: Typed, act: Act, *, done: str
) -> Response:
    again = partial(_person, request, begin, handle, typed=sent)
    where = f"/staff/people/{handle}?done={done}#done"
    return take_grave(begin, Permission.PEOPLE_MANAGE, act, then=where, again=again)


@router.post("/people/{handle}/roles")
def give_role(request: Request, begin: BeginPage, sent: Sent, handle: str) -> Response:
    """Give a role, until a day if one is named."""

    def act(work: Work) -> object:
        role = needed(sent, "role", "Choose a role.")
        ends = end_of_day(sent.get("ends"), "ends")
        if ends is not None and ends <= work.now:
            raise wrong("ends", "Give a day to come.")
        return identity.assign_role(work, person=handle, role=role, ends_at=ends)

    return _person_step(request, begin, handle, sent, act, done="given")


@router.post("/people/{handle}/roles/{role}/end")
def end_role(request: Request, begin: BeginPage, sent: Sent, handle: str, role: str) -> Response:
    """Take a role away now."""

    def act(work: Work) -> object:
        identity.end_role(work, person=handle, role=role)
        return None

    return _person_step(request, begin, handle, sent, act, done="taken")


@router.post("/people/{handle}/stop")
def stop_account(request: Request, begin: BeginPage, sent: Sent, handle: str) -> Response:
    """Stop an account, once its handle was typed."""

    def act(work: Work) -> object:
        typed_name(sent, handle)
        identity.disable_person(work, handle)
        return None

    return _person_step(request, begin, handle, sent, act, done="stopped")


@router.post("/people/{handle}/erase")
def erase(request: Request, begin: BeginPage, sent: Sent, handle: str) -> Response:
    """Erase a person, once the handle was typed."""

    def act(work: Work) -> str:
        typed_name(sent, handle, key="erased")
        done = erase_person(work, handle, reason=needed(sent, "reason", "Say why."))
        return f"/staff/people/{done.pseudonym}?done=erased#done"

    again = partial(_person, request, begin, handle, typed=sent)
    return take_grave(begin, Permission.PEOPLE_MANAGE, act, then=str, again=again)


# --- organisations -------------------------------------------------------------------------------


@router.post("/organisations")
def add_organisation(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Add an organisation."""

    def act(work: Work) -> str:
        slug = needed(sent, "slug", "Give a short name for addresses, such as example-lab.")
        name = needed(sent, "name", "Give the organisation’s name.")
        identity.create_organisation(work, slug=slug, name=name)
        return f"/staff/organisations/{slug}?done=organisation#done"

    again = partial(_people, request, begin, typed=sent)
    return take(begin, Permission.PEOPLE_MANAGE, act, then=str, again=again)


@router.get("/organisations/{slug}")
def show_organisation(request: Request, begin: BeginPage, slug: str, done: str = "") -> Response:
    """Show an organisation: its roster, what it signed, what it holds."""
    return _organisation(request, begin, slug, done=done)


def _organisation(
    request: Request,
    begin: Any,
    slug: str,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.PEOPLE_READ)
        row = people.load_organisation(work, slug)
        roster = rosters.list_roster(work, row.slug, everything=True)
        grants = partners.holders_report(work, organisation=row.slug, limit=ROWS)
        signatures = [
            one for one in partners.list_signatures(work) if one.organisation_id == row.id
        ]
        manages = authorize(work.actor, Permission.PEOPLE_MANAGE).allowed
        stops = authorize(work.actor, Permission.GRANT_STOP).allowed
    fields = ("person", "place", "until", "typed", "reason")
    return page(
        request,
        "desk/organisation.html",
        row=row,
        roster=[line for line in roster if line.current],
        past=[line for line in roster if not line.current],
        grants=grants,
        signatures=signatures[:ROWS],
        manages=manages,
        stops=stops,
        places=PLACES,
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal, typed, *fields),
    )


def _organisation_step(
    request: Request,
    begin: Any,
    slug: str,
    sent: Typed,
    act: Act,
    *,
    done: str,
    needs: Permission = Permission.PEOPLE_MANAGE,
) -> Response:
    again = partial(_organisation, request, begin, slug, typed=sent)
    where = f"/staff/organisations/{slug}?done={done}#done"
    return take_grave(begin, needs, act, then=where, again=again)


@router.post("/organisations/{slug}/members")
def add_member(request: Request, begin: BeginPage, sent: Sent, slug: str) -> Response:
    """Put a person on the roster."""

    def act(work: Work) -> object:
        return identity.add_member(
            work,
            organisation=slug,
            person=needed(sent, "person", "Give the person’s handle."),
            role=needed(sent, "place", "Choose what they are."),
            ends_at=end_of_day(sent.get("until"), "until"),
        )

    return _organisation_step(request, begin, slug, sent, act, done="member")


@router.post("/organisations/{slug}/members/{handle}/end")
def end_member(request: Request, begin: BeginPage, sent: Sent, slug: str, handle: str) -> Response:
    """Take a person off the roster now."""

    def act(work: Work) -> object:
        return rosters.end_membership(work, organisation=slug, person=handle)

    return _organisation_step(request, begin, slug, sent, act, done="left")


@router.post("/organisations/{slug}/revoke")
def revoke(request: Request, begin: BeginPage, sent: Sent, slug: str) -> Response:
    """End every grant of an organisation, once its short name was typed."""

    def act(work: Work) -> object:
        typed_name(sent, slug)
        reason = needed(sent, "reason", "Say why. The organisation reads it.")
        return partners.revoke_organisation(work, slug, reason=reason)

    return _organisation_step(
        request, begin, slug, sent, act, done="revoked", needs=Permission.GRANT_STOP
    )
