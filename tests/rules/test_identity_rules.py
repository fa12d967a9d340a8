"""Roles, permissions and the token format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.identity.rules import (
    ROLE_PERMISSIONS,
    STAFF,
    Permission,
    Role,
    authorize,
    is_token_shaped,
    make_token_text,
    permissions_of,
    require,
)
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR, SYSTEM, Actor, ActorKind
from stagerelease.kernel.errors import Forbidden, Unauthenticated


def person(*roles: str, scopes: frozenset[str] | None = None) -> Actor:
    return Actor(
        kind=ActorKind.PERSON, id="per_1", name="ann", roles=frozenset(roles), scopes=scopes
    )


def test_every_role_has_a_row_and_nothing_outside_the_table_is_allowed():
    assert set(ROLE_PERMISSIONS) == set(Role)
    for role in Role:
        for permission in Permission:
            allowed = authorize(person(role), permission).allowed
            everyone = permission in (
                Permission.TOKEN_MANAGE_OWN,
                Permission.ACCESS_REQUEST_SUBMIT,
            )
            assert allowed == (everyone or permission in ROLE_PERMISSIONS[role])


def test_an_auditor_changes_nothing():
    reading = {p for p in Permission if p.endswith((":read", ":read_internal", ":read_private"))}
    own = {Permission.TOKEN_MANAGE_OWN, Permission.ACCESS_REQUEST_SUBMIT}
    assert permissions_of(person(Role.AUDITOR)) <= reading | own


@pytest.mark.parametrize("actor", [OPERATOR, SYSTEM])
def test_a_shell_on_the_host_never_stands_in_for_a_person(actor):
    assert not authorize(actor, Permission.PROMOTION_DECIDE).allowed
    assert not authorize(actor, Permission.AGREEMENT_SIGN).allowed


def test_anonymous_may_nothing_and_is_told_to_sign_in():
    assert permissions_of(ANONYMOUS) == frozenset()
    with pytest.raises(Unauthenticated):
        require(ANONYMOUS, Permission.TRACK_READ)
    with pytest.raises(Forbidden) as refused:
        require(person(), Permission.TRACK_READ)
    assert refused.value.reason == "permission.track:read"
    assert refused.value.next_step


def test_the_one_who_opens_a_promotion_is_not_the_one_who_decides_it():
    for role in STAFF:
        held = ROLE_PERMISSIONS[role]
        assert not {Permission.PROMOTION_OPEN, Permission.PROMOTION_DECIDE} <= held


@given(scopes=st.frozensets(st.sampled_from(["read", "download", "infer", "catalog", "nonsense"])))
def test_scopes_only_ever_take_away(scopes):
    whole = permissions_of(person(Role.OWNER))
    assert permissions_of(person(Role.OWNER, scopes=scopes)) <= whole


@given(st.sampled_from(["srp_", "srs_", "srd_"]))
def test_made_tokens_have_the_form(prefix):
    text = make_token_text(prefix)
    assert len(text) == 40
    assert is_token_shaped(text)


@given(st.data())
def test_one_changed_character_is_junk(data):
    text = make_token_text("srp_")
    at = data.draw(st.integers(0, 39))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != text[at]))
    assert not is_token_shaped(text[:at] + other + text[at + 1 :])


@given(st.text(max_size=60))
def test_any_text_is_answered_without_an_error(text):
    assert is_token_shaped(text) in (True, False)
