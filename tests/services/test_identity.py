"""People, roles and tokens against a real database."""

from __future__ import annotations

from datetime import timedelta

import pytest

from stagerelease.identity import queries, service
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, Unauthenticated
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
