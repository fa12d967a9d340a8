"""The first owner; people, organisations, roles and tokens."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stagerelease.cli.box import Opened, instant, opened
from stagerelease.erasing.service import erase_person
from stagerelease.http.pages.demo import read_demo
from stagerelease.identity import links, proving, queries, service
from stagerelease.identity.rules import Permission, Role, require
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict

person = typer.Typer(help="People and their roles.", no_args_is_help=True)
organisation = typer.Typer(help="Organisations and their rosters.", no_args_is_help=True)
token = typer.Typer(help="API tokens.", no_args_is_help=True)
GROUPS = {"person": person, "organisation": organisation, "token": token}

Until = Annotated[str | None, typer.Option("--until", help="Last day, e.g. 2026-12-31 (UTC).")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands that stand by themselves."""
    app.command("init")(init)


def init(
    handle: Annotated[str, typer.Argument(help="What the owner is called here, such as ada.")],
    name: Annotated[str, typer.Option(help="Name to show.")],
    email: Annotated[str | None, typer.Option(help="Where to write to.")] = None,
) -> None:
    """Set the service up: its database, its first owner, and a link for their first sign-in."""
    with opened(migrate=True) as box:
        if read_demo(box.settings) is not None:
            raise Conflict(
                f"{box.settings.data_dir} holds a demonstration.",
                reason="init.demo",
                next_step="Choose another DATA_DIR for what is real.",
            )
        with box.works.begin(box.actor) as work:
            if queries.list_holders(work, Role.OWNER):
                raise Conflict(
                    "There is an owner already.",
                    reason="init.owner",
                    next_step="`stagerelease person enrol HANDLE` prints a link for who is here.",
                )
            service.create_person(work, handle=handle, display_name=name, email=email)
            service.assign_role(work, person=handle, role=Role.OWNER)
            made = proving.make_enrolment(work, handle)
        _print_link(box, made)


def _print_link(box: Opened, made: proving.Enrolment) -> None:
    settings = box.settings
    origin = settings.origin
    if not settings.public_url:  # a passkey belongs to a name, and numbers are none
        origin = origin.replace("//127.0.0.1:", "//localhost:")
    box.out.say(
        f"Whoever opens this link is {made.person.handle}. It works once, until {iso(made.until)}. "
        "Open it in the browser of that person, and make a passkey."
    )
    token = links.sign_link(box.link_key, made.link)
    sys.stdout.write(f"{origin}{proving.ENROL_PATH}?t={token}\n")


@person.command("enrol")
def person_enrol(handle: str) -> None:
    """Print a link that signs a person in once, so that they make a passkey."""
    with opened() as box:
        with box.works.begin(box.actor) as work:
            made = proving.make_enrolment(work, handle)
        _print_link(box, made)


@person.command("create")
def person_create(
    handle: str,
    name: Annotated[str, typer.Option(help="Name to show.")],
    email: Annotated[str | None, typer.Option(help="Where to write to.")] = None,
    service_account: Annotated[bool, typer.Option("--service")] = False,
    role: Annotated[list[str] | None, typer.Option(help="Role to give; may be repeated.")] = None,
) -> None:
    """Add a person, with roles."""
    with opened() as box, box.works.begin(box.actor) as work:
        kind = "service" if service_account else "human"
        service.create_person(work, handle=handle, display_name=name, email=email, kind=kind)
        for one in role or []:
            service.assign_role(work, person=handle, role=one)
        box.out.show(queries.load_person(work, handle))


@person.command("list")
def person_list() -> None:
    """List people."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        require(work.actor, Permission.PEOPLE_READ)
        box.out.show(queries.list_people(work), columns=["handle", "kind", "display_name", "id"])


@person.command("disable")
def person_disable(handle: str) -> None:
    """Stop an account; its tokens stop at once."""
    with opened() as box, box.works.begin(box.actor) as work:
        service.disable_person(work, handle)
        box.out.say(f"{handle} is disabled; none of their tokens works any more.")


@person.command("erase")
def person_erase(
    handle: str,
    reason: Annotated[str, typer.Option(help="Why. It is kept for good; name nobody in it.")],
    dry_run: Annotated[bool, typer.Option(help="Do everything, then undo it.")] = False,
) -> None:
    """Forget who somebody is: their account ends, names become a pseudonym, decisions stand."""
    with opened() as box, box.works.begin(box.actor, dry_run=dry_run) as work:
        box.out.show(erase_person(work, handle, reason=reason))
        if dry_run:
            box.out.say("Nothing was kept: this was a dry run.")


@person.command("give-role")
def give_role(handle: str, role: str, until: Until = None) -> None:
    """Give a role."""
    with opened() as box, box.works.begin(box.actor) as work:
        service.assign_role(work, person=handle, role=role, ends_at=instant(until))
        box.out.say(f"{handle} holds {role}.")


@person.command("end-role")
def end_role(handle: str, role: str) -> None:
    """Take a role away."""
    with opened() as box, box.works.begin(box.actor) as work:
        service.end_role(work, person=handle, role=role)
        box.out.say(f"{handle} no longer holds {role}.")


@organisation.command("create")
def organisation_create(
    slug: str, name: Annotated[str, typer.Option(help="Name to show.")]
) -> None:
    """Add an organisation."""
    with opened() as box, box.works.begin(box.actor) as work:
        service.create_organisation(work, slug=slug, name=name)
        box.out.show(queries.load_organisation(work, slug))


@organisation.command("list")
def organisation_list() -> None:
    """List organisations."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        require(work.actor, Permission.PEOPLE_READ)
        box.out.show(queries.list_organisations(work))


@organisation.command("add-member")
def add_member(
    slug: str,
    handle: str,
    role: Annotated[str, typer.Option(help="partner_admin or partner_member.")] = "partner_member",
    until: Until = None,
) -> None:
    """Put a person on the roster."""
    with opened() as box, box.works.begin(box.actor) as work:
        service.add_member(
            work, organisation=slug, person=handle, role=role, ends_at=instant(until)
        )
        box.out.say(f"{handle} is on the roster of {slug} as {role}.")


@organisation.command("roster")
def roster(
    slug: str,
    at: Annotated[str | None, typer.Option(help="At this instant (UTC); now if left out.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every line there ever was.")] = False,
) -> None:
    """Show who is on the roster, now or at an instant."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        rows = service.list_roster(work, slug, at=instant(at), everything=everything)
        box.out.show(rows, columns=["handle", "role", "starts_at", "ends_at", "current"])


@organisation.command("end-member")
def end_member(
    slug: str,
    handle: str,
    at: Annotated[str | None, typer.Option(help="At this instant (UTC); now if left out.")] = None,
) -> None:
    """Take a person off the roster."""
    with opened() as box, box.works.begin(box.actor) as work:
        service.end_membership(work, organisation=slug, person=handle, at=instant(at))
        box.out.say(f"{handle} is off the roster of {slug}{f' from {at}' if at else ''}.")


@token.command("create")
def token_create(
    handle: str,
    name: Annotated[str, typer.Option(help="What it is for.")] = "cli",
    scope: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    until: Until = None,
) -> None:
    """Make a token and print it, once."""
    with opened() as box:
        with box.works.begin(box.actor) as work:
            row, text = service.create_token(
                work,
                person=handle,
                name=name,
                scopes=scope or ["all"],
                expires_at=instant(until),
            )
            token_id = row.id
        box.out.say(f"Token {token_id} of {handle}. It is shown this once; keep it safe.")
        sys.stdout.write(text + "\n")


@token.command("list")
def token_list(
    handle: Annotated[str | None, typer.Option("--person", help="Only this person's.")] = None,
) -> None:
    """List tokens, never their text."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        own = work.actor.is_human and handle in (None, work.actor.name)
        require(work.actor, Permission.TOKEN_MANAGE_OWN if own else Permission.PEOPLE_READ)
        who = work.actor.id if own else (queries.load_person(work, handle).id if handle else None)
        box.out.show(
            queries.list_tokens(work, person_id=who),
            columns=["id", "person", "name", "display", "scopes", "expires_at", "revoked_at"],
        )


@token.command("revoke")
def token_revoke(token_id: str) -> None:
    """End a token now."""
    with opened() as box, box.works.begin(box.actor) as work:
        service.revoke_token(work, token_id)
        box.out.say(f"{token_id} is revoked.")
