"""People, roles and tokens against a real database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from stagerelease.erasing.service import erase_person
from stagerelease.identity import queries, service, tokens
from stagerelease.identity.rules import SCOPES
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from stagerelease.ledger import queries as ledger


@pytest.fixture
def ann(works):
    """A person with a token, and the token's text."""
    with works.begin(OPERATOR) as work:
        service.create_person(work, handle="ann", display_name="Ann")
        _, text = service.create_token(work, person="ann", name="laptop")
    return text


def who(works, token):
    with works.begin(read_only=True) as work:
        return service.authenticate(work, token)


def test_a_token_names_its_person_with_the_roles_and_rosters_of_this_instant(works, clock, ann):
    end = clock.now() + timedelta(days=1)
    with works.begin(OPERATOR) as work:
        service.create_organisation(work, slug="lab", name="Lab")
        service.assign_role(work, person="ann", role="reviewer", ends_at=end)
        service.add_member(work, organisation="lab", person="ann", role="partner_admin")
    actor = who(works, ann)
    assert actor.roles == {"reviewer", "partner_admin"}
    assert actor.administers == actor.organisations
    assert actor.until == end
    clock.move(timedelta(days=2))
    assert who(works, ann).roles == {"partner_admin"}


@pytest.mark.parametrize(
    ("end", "reason"),
    [("revoke", "token.revoked"), ("expire", "token.expired"), ("disable", "account.disabled")],
)
def test_a_token_ends_with_its_revocation_its_date_or_its_account(works, clock, end, reason):
    with works.begin(OPERATOR) as work:
        service.create_person(work, handle="bob", display_name="Bob")
        row, text = service.create_token(
            work, person="bob", name="x", expires_at=clock.now() + timedelta(hours=1)
        )
        token_id = row.id
    assert who(works, text).name == "bob"
    if end == "expire":
        clock.move(timedelta(hours=1))
    else:
        with works.begin(OPERATOR) as work:
            if end == "revoke":
                service.revoke_token(work, token_id)
            else:
                service.disable_person(work, "bob")
    with pytest.raises(Unauthenticated) as refused:
        who(works, text)
    assert refused.value.reason == reason
    assert str(refused.value) == "Invalid credentials in Authorization header"


def test_the_text_of_a_token_is_nowhere_in_the_database(works, ann):
    with works.begin(read_only=True) as work:
        connection = work.session.connection()
        tables = [
            "api_token",
            "log_leaf",
            "log_detail",
            "log_commitment",
        ]
        for table in tables:
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}"):
                assert ann not in repr(row)
                assert ann[4:34] not in repr(row)


def test_everything_that_changes_who_may_what_is_in_the_log(works, ann):
    with works.begin(OPERATOR) as work:
        service.assign_role(work, person="ann", role="auditor")
        service.end_role(work, person="ann", role="auditor")
        token = queries.list_tokens(work)[0]
        service.revoke_token(work, token.id)
    with works.begin(read_only=True) as work:
        types = [e.leaf["type"] for e in ledger.entries(work, start=0, limit=100)]
        bodies = b"".join(e.body for e in ledger.entries(work, start=0, limit=100))
    assert types == [
        "person.created",
        "token.created",
        "role.assigned",
        "role.ended",
        "token.revoked",
    ]
    assert b"ann" not in bodies.lower().replace(b"person", b"")


def test_one_may_manage_ones_own_tokens_and_no_one_elses(works, ann):
    actor = who(works, ann)
    with works.begin(actor) as work:
        service.create_token(work, person="ann", name="second")
    with works.begin(OPERATOR) as work:
        service.create_person(work, handle="eve", display_name="Eve")
    with pytest.raises(Forbidden), works.begin(actor) as work:
        service.create_token(work, person="eve", name="theirs")
    with works.begin(read_only=True) as work:
        assert len(queries.list_tokens(work)) == 2


@pytest.mark.parametrize("handle", ["", "Ann", "a b", "-a", "a" * 64, "ann\x00", "../x", "ä"])
def test_a_handle_is_a_handle(works, handle):
    with pytest.raises(Invalid), works.begin(OPERATOR) as work:
        service.create_person(work, handle=handle, display_name="X")


def test_a_handle_is_taken_once(works, ann):
    with pytest.raises(Conflict), works.begin(OPERATOR) as work:
        service.create_person(work, handle="ann", display_name="Other")
    with works.begin(read_only=True) as work:
        assert queries.load_person(work, "ann").display_name == "Ann"


def test_nobody_makes_a_token_for_another_person(works):
    """With one, an owner could approve as a second reviewer: quorums would mean nothing."""
    with works.begin(OPERATOR) as work:
        for handle, kind in (("own", "human"), ("rev", "human"), ("robot", "service")):
            service.create_person(work, handle=handle, display_name=handle, kind=kind)
        service.assign_role(work, person="own", role="owner")
        text = service.create_token(work, person="own", name="mine")[1]
    with works.begin() as work:
        work.actor = service.authenticate(work, text)
        with pytest.raises(Forbidden) as caught:
            service.create_token(work, person="rev", name="theirs")
        assert caught.value.reason == "token.other-person"
        service.create_token(work, person="robot", name="build")
        service.create_token(work, person="own", name="second")


def by_token(works, text, **changes):
    """Make a token for oneself by that token, and return its row."""
    with works.begin() as work:
        work.actor = service.authenticate(work, text)
        details = {"person": work.actor.name, "name": "made by another"} | changes
        return service.create_token(work, **details)[0]


def test_a_token_makes_none_that_outlives_it(works, clock, ann):
    end = clock.now() + timedelta(days=1)
    with works.begin(OPERATOR) as work:
        _, short = service.create_token(work, person="ann", name="a day", expires_at=end)
    assert by_token(works, short).expires_at == end  # without an end asked for, it has this one
    sooner = end - timedelta(hours=1)
    assert by_token(works, short, expires_at=sooner).expires_at == sooner
    with pytest.raises(Forbidden) as refused:
        by_token(works, short, expires_at=end + timedelta(seconds=1))
    assert refused.value.reason == "token.outlives"
    assert by_token(works, ann).expires_at is None  # this one has no end itself


def erase(work, handle):
    """Erase a person, for a reason that names nobody."""
    erase_person(work, handle, reason="Asked by letter.")


def reason_of(works, text):
    """Say why a token is refused now, or None."""
    try:
        who(works, text)
    except Unauthenticated as refused:
        return refused.reason
    return None


def test_ending_a_token_ends_every_one_that_was_made_with_it_and_no_other(works, ann):
    def made(text):
        with works.begin() as work:
            work.actor = service.authenticate(work, text)
            row, new = service.create_token(work, person="ann", name="made by another")
            return row.id, new

    with works.begin(OPERATOR) as work:
        first, leaked = service.create_token(work, person="ann", name="leaked")
        first = first.id
    second, child = made(leaked)
    third, grandchild = made(child)
    _, beside = made(ann)
    with works.begin(OPERATOR) as work:
        service.revoke_token(work, second)  # by itself; what is above it stays
    assert reason_of(works, leaked) is None
    assert reason_of(works, child) == reason_of(works, grandchild) == "token.revoked"
    fourth, late = made(leaked)
    fifth, later = made(late)
    with works.begin(OPERATOR) as work:
        service.revoke_token(work, first)
    assert {reason_of(works, text) for text in (leaked, late, later)} == {"token.revoked"}
    assert reason_of(works, ann) is reason_of(works, beside) is None
    with works.begin(OPERATOR, read_only=True) as work:
        ended = [
            (
                ledger.reveal(work, e.leaf["subject"]),
                ledger.detail(work, e.leaf["detail_sha256"]),
            )
            for e in ledger.entries(work, start=0, limit=100)
            if e.leaf["type"] == "token.revoked"
        ]
    assert ended == [
        (f"token:{second}", {"made_by": first}),
        (f"token:{third}", {"made_by": second, "because_of": second}),
        (f"token:{first}", {}),
        (f"token:{fourth}", {"made_by": first, "because_of": first}),
        (f"token:{fifth}", {"made_by": fourth, "because_of": first}),
    ]


@pytest.mark.parametrize("stop", [service.disable_person, erase])
def test_what_the_tokens_of_a_stopped_account_made_for_others_ends_with_it(works, stop):
    with works.begin(OPERATOR) as work:
        for handle, kind in (("own", "human"), ("top", "human"), ("robot", "service")):
            service.create_person(work, handle=handle, display_name=handle, kind=kind)
        for handle in ("own", "top"):
            service.assign_role(work, person=handle, role="owner")
        leaked = service.create_token(work, person="own", name="leaked")[1]
        before = service.create_token(work, person="robot", name="the host's")[1]
    with works.begin() as work:
        work.actor = service.authenticate(work, leaked)
        kept = service.create_token(work, person="robot", name="kept")[1]
    assert reason_of(works, kept) is None
    with works.begin(OPERATOR) as work:
        stop(work, "own")
    assert reason_of(works, kept) == "token.revoked"
    assert reason_of(works, before) is None


def test_nobody_has_more_tokens_than_one_step_can_end(works, ann, monkeypatch):
    monkeypatch.setattr(tokens, "MOST_LIVE", 3)
    last = [by_token(works, ann).id for _ in range(2)][-1]
    with pytest.raises(Conflict) as refused:
        by_token(works, ann)
    assert refused.value.reason == "token.too-many"
    with works.begin(OPERATOR) as work:
        service.revoke_token(work, last)
    by_token(works, ann)


def test_a_token_that_was_ended_meanwhile_makes_no_other(works, ann):
    with works.begin(read_only=True) as work:
        actor = service.authenticate(work, ann)
    with works.begin(OPERATOR) as work:
        service.revoke_token(work, actor.token_id)
    with works.begin(actor) as work, pytest.raises(Unauthenticated) as refused:
        service.create_token(work, person="ann", name="too late")
    assert refused.value.reason == "token.revoked"


@pytest.mark.parametrize("scope", sorted(set(SCOPES) - {"all"}))
def test_only_a_token_of_all_scopes_makes_others(works, ann, scope):
    with works.begin(OPERATOR) as work:
        service.assign_role(work, person="ann", role="owner")
        _, narrow = service.create_token(work, person="ann", name="x", scopes=[scope])
    with pytest.raises(Forbidden) as refused:
        by_token(works, narrow, scopes=[scope])
    assert refused.value.reason.startswith("permission.token:")


@pytest.mark.parametrize("handle", ["eve", "nobody", "per_nobody"])
def test_who_makes_tokens_for_nobody_else_does_not_learn_who_there_is(works, ann, handle):
    with works.begin(OPERATOR) as work:
        service.create_person(work, handle="eve", display_name="Eve")
    with pytest.raises(Forbidden) as refused:
        by_token(works, ann, person=handle)
    assert refused.value.reason == "permission.token:manage_any"
    with works.begin(OPERATOR) as work, pytest.raises(NotFound):
        service.create_token(work, person="nobody", name="x")


def test_since_when_an_account_is_stopped_never_changes(works, clock, ann):
    with works.begin(OPERATOR) as work:
        service.disable_person(work, "ann")
        first = work.now
    clock.move(timedelta(days=1))
    with works.begin(OPERATOR) as work:
        service.disable_person(work, "ann")
        assert queries.load_person(work, "ann").disabled_at == first
        types = [e.leaf["type"] for e in ledger.entries(work, start=0, limit=100)]
    assert types.count("person.disabled") == 1


def test_nobody_is_put_on_a_roster_in_the_past(works, clock, ann):
    with works.begin(OPERATOR) as work:
        service.create_organisation(work, slug="lab", name="Lab")
    line = {"organisation": "lab", "person": "ann", "role": "partner_member"}
    with works.begin(OPERATOR) as work, pytest.raises(Invalid) as refused:
        service.add_member(work, **line, starts_at=clock.now() - timedelta(seconds=1))
    assert refused.value.reason == "membership.dates"
    with works.begin(OPERATOR) as work:
        assert service.list_roster(work, "lab", everything=True) == []
        service.add_member(work, **line, starts_at=work.now)
        assert len(service.list_roster(work, "lab")) == 1


def test_nobody_gives_themselves_a_role(works, ann):
    with works.begin(OPERATOR) as work:
        service.assign_role(work, person="ann", role="owner")
    with works.begin() as work:
        work.actor = service.authenticate(work, ann)
        for name in ("ann", work.actor.id):
            with pytest.raises(Forbidden) as refused:
                service.assign_role(work, person=name, role="reviewer")
            assert refused.value.reason == "role.self"
        service.create_person(work, handle="eve", display_name="Eve")
        service.assign_role(work, person="eve", role="reviewer")
        service.end_role(work, person="ann", role="owner")  # giving one up is always possible


def test_who_watches_is_told_of_every_role_that_decides(works, ann):
    with works.begin(OPERATOR) as work:
        for role in ("auditor", "access_officer", "researcher", "reviewer", "owner"):
            service.assign_role(work, person="ann", role=role)
        for role in ("release_manager", "security"):
            service.assign_role(work, person="ann", role=role)
    with works.begin(read_only=True) as work:
        told = [job for job in work.session.scalars(select(Job.payload)) if "event" in job]
    assert {event["event"] for event in told} == {"role.given"}
    assert sorted(event["facts"]["role"] for event in told) == [
        *("owner", "release_manager", "reviewer", "security"),
    ]
    assert {tuple(event["roles"]) for event in told} == {("auditor", "owner", "reviewer")}
    assert told[0]["facts"] | {"role": ""} == {"person": "ann", "role": "", "by": "local operator"}
