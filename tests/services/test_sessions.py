"""Links by mail and sessions of browsers: one use, one browser, and an end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from stagerelease.identity import entering, links, passwords, sessions
from stagerelease.identity import service as identity
from stagerelease.identity.tables import MailLink, SignInSession
from stagerelease.jobs.runner import run_one
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import (
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    ProofNeeded,
    TooMany,
    Unauthenticated,
)

KEY = bytes(range(32))
NETWORK = "ab" * 32


def person(works, handle="ada", email="Ada@Example.org", kind="human"):
    with works.begin(OPERATOR) as work:
        return identity.create_person(
            work, handle=handle, display_name="Ada", kind=kind, email=email
        ).id


def link(works, **changes):
    values = {
        "purpose": "test",
        "subject": "thing:1",
        "person_id": None,
        "address": "a@example.org",
        "lifetime": timedelta(minutes=15),
    }
    with works.begin() as work:
        return links.sign_link(KEY, links.make_link(work, **{**values, **changes}))


def opened(works, token, purpose="test", key=KEY):
    with works.begin(read_only=True) as work:
        return links.open_link(work, key, token, purpose=purpose)


def test_a_link_opens_any_number_of_times_and_is_used_once(works):
    token = link(works)
    assert opened(works, token).subject == opened(works, token).subject == "thing:1"
    with works.begin() as work:
        assert links.use_link(work, KEY, token, purpose="test").address == "a@example.org"
    for again in (links.open_link, links.use_link):
        with pytest.raises(Conflict) as refused, works.begin() as work:
            again(work, KEY, token, purpose="test")
        assert refused.value.reason == "link.used"


def test_a_use_that_fails_burns_nothing(works):
    token = link(works)
    with pytest.raises(RuntimeError), works.begin() as work:
        links.use_link(work, KEY, token, purpose="test")
        raise RuntimeError
    assert opened(works, token).used_at is None


def test_a_link_is_of_its_key_purpose_time_and_letters(works, clock):
    token = link(works)
    wrong = [token[:-1], token + "A", "", "x", "é" * 9, token.replace(".", ""), "A" * 5000, "\x00"]
    wrong += [token[:i] + chr(ord(token[i]) ^ 1) + token[i + 1 :] for i in range(0, len(token), 7)]
    for other in wrong:
        with pytest.raises(Invalid):
            opened(works, other)
    with pytest.raises(Invalid):
        opened(works, token, purpose="other")
    with pytest.raises(Invalid):
        opened(works, token, key=bytes(32))
    clock.move(timedelta(minutes=15) - timedelta(microseconds=1))
    opened(works, token)
    clock.move(timedelta(microseconds=1))
    with pytest.raises(Conflict) as refused:
        opened(works, token)
    assert refused.value.reason == "link.expired"


def test_nothing_at_rest_opens_a_link(works):
    token = link(works)
    with works.begin(read_only=True) as work:
        row = work.session.query(MailLink).one()
        stored = [str(getattr(row, c.key)) for c in MailLink.__table__.columns]
    assert all(token not in value for value in stored)
    with pytest.raises(Invalid):
        opened(works, stored[0])


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path):
    path = tmp_path / "keys" / "links.key"
    key = links.load_or_create_link_key(path)
    assert len(key) == 32
    assert links.load_or_create_link_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("short")
    with pytest.raises(Invalid):
        links.load_or_create_link_key(path)


# --- sessions -----------------------------------------------------------------------------------


def enter(works, person_id, **options):
    with works.begin() as work:
        return sessions.open_session(work, person_id, **options)


def who(works, cookie):
    with works.begin(read_only=True) as work:
        return sessions.authenticate_session(work, cookie)


def why_not(works, cookie):
    with pytest.raises(Unauthenticated) as refused:
        who(works, cookie)
    return refused.value.reason


def test_a_session_is_a_person_with_the_roles_of_now(works):
    me = person(works)
    cookie = enter(works, me)
    actor = who(works, cookie)
    assert (actor.id, actor.is_human, actor.scopes, actor.roles) == (me, True, None, frozenset())
    with works.begin(OPERATOR) as work:
        identity.assign_role(work, person="ada", role="access_officer")
    assert who(works, cookie).roles == {"access_officer"}
    with works.begin(OPERATOR) as work:
        identity.end_role(work, person="ada", role="access_officer")
        identity.disable_person(work, "ada")
    assert why_not(works, cookie) == "account.disabled"
    with pytest.raises(Forbidden):
        enter(works, me)


def test_a_service_account_never_signs_in(works):
    robot = person(works, "robot", "robot@example.org", kind="service")
    with pytest.raises(Forbidden):
        enter(works, robot)


def test_it_ends_of_idleness_and_of_age(works, clock):
    cookie = enter(works, person(works))
    clock.move(sessions.IDLE - timedelta(seconds=1))
    who(works, cookie)
    with works.begin() as work:
        assert sessions.seen_due(work, cookie)
        sessions.touch_session(work, cookie)
        assert not sessions.seen_due(work, cookie)
    for _ in range(13):
        clock.move(timedelta(hours=11, minutes=50))
        who(works, cookie)
        with works.begin() as work:
            sessions.touch_session(work, cookie)
    clock.set(clock.now() + timedelta(hours=3))
    assert why_not(works, cookie) == "session.expired"


def test_idle_for_twelve_hours_is_over_even_if_touched_afterwards(works, clock):
    cookie = enter(works, person(works))
    clock.move(sessions.IDLE)
    assert why_not(works, cookie) == "session.idle"
    with works.begin() as work:
        sessions.touch_session(work, cookie)
    assert why_not(works, cookie) == "session.idle"


def test_signing_in_rotates_and_signing_out_ends(works):
    me = person(works)
    planted = enter(works, me)
    mine = enter(works, me, replaces=planted)
    assert planted != mine
    assert why_not(works, planted) == "session.ended"
    with works.begin() as work:
        sessions.close_session(work, mine)
    assert why_not(works, mine) == "session.ended"
    assert why_not(works, "A" * 43) == why_not(works, "junk") == "session.unknown"
    a, b = enter(works, me), enter(works, me)
    with works.begin(who(works, a)) as work:
        assert len(sessions.list_sessions(work)) == 2
        assert sessions.close_all_sessions(work) == 2
    assert {why_not(works, a), why_not(works, b)} == {"session.ended"}


def test_the_cookie_is_not_in_the_database(works):
    cookie = enter(works, person(works))
    with works.begin(read_only=True) as work:
        row = work.session.query(SignInSession).one()
        assert all(cookie not in str(getattr(row, c.key)) for c in SignInSession.__table__.columns)


# --- signing in by mail -------------------------------------------------------------------------


def ask(works, address="ada@example.org", network=NETWORK, **options):
    with works.begin() as work:
        entering.ask_to_sign_in(work, address, network=network, **options)


def mailed(works):
    while run_one(works, {entering.JOB: entering.mail_sign_in}, "test"):
        pass
    with works.begin(read_only=True) as work:
        jobs = work.session.query(Job).filter(Job.kind == "notices.deliver").all()
        return [j.payload for j in jobs if j.payload["event"] == "account.sign_in"]


def test_the_same_is_written_for_addresses_known_and_unknown_and_only_one_is_mailed(works):
    me = person(works)
    ask(works, "ADA@example.org ", next_path="/me")
    ask(works, "nobody@example.org", next_path="/me")
    with works.begin(read_only=True) as work:
        known, unknown = work.session.query(MailLink).order_by(MailLink.address).all()
        assert (known.purpose, known.person_id) == (unknown.purpose, unknown.person_id)
        jobs = work.session.query(Job).filter(Job.kind == entering.JOB).all()
        assert {frozenset(j.payload) for j in jobs} == {frozenset({"link"})}
    told = mailed(works)
    assert [t["people"] for t in told] == [[me]]
    token = links.sign_link(KEY, told[0]["facts"]["link"])
    with works.begin(read_only=True) as work:
        assert entering.show_sign_in(work, KEY, token).person.id == me
    with works.begin() as work:
        seen, cookie = entering.sign_in(work, KEY, token, replaces=None)
    assert (seen.next, who(works, cookie).id) == ("/me", me)
    with pytest.raises(Conflict), works.begin() as work:
        entering.sign_in(work, KEY, token, replaces=None)


@pytest.mark.parametrize(
    "address", ["", "a", "@b.c", "a b@c.de", "a@b", "a\n@b.de", "x" * 260 + "@b.de"]
)
def test_what_is_no_address_is_said_beside_the_field(works, address):
    with pytest.raises(Invalid) as refused:
        ask(works, address)
    assert [f.field for f in refused.value.fields] == ["address"]


def test_limits_are_per_address_and_per_network(works, clock):
    for _ in range(entering.PER_ADDRESS):
        ask(works, network="cd" * 32)
    with pytest.raises(TooMany) as refused:
        ask(works, network="ef" * 32)
    assert refused.value.reason == "sign-in.too-many-address"
    for n in range(entering.PER_NETWORK):
        ask(works, f"n{n}@example.org")
    with pytest.raises(TooMany) as refused:
        ask(works, "more@example.org")
    assert refused.value.reason == "sign-in.too-many-network"
    ask(works, "more@example.org", network="01" * 32)
    clock.move(timedelta(hours=1))
    ask(works)


def test_an_account_disabled_after_the_mail_is_not_signed_in(works):
    person(works)
    ask(works)
    token = links.sign_link(KEY, mailed(works)[0]["facts"]["link"])
    with works.begin(OPERATOR) as work:
        identity.disable_person(work, "ada")
    with pytest.raises(DomainError), works.begin() as work:
        entering.sign_in(work, KEY, token, replaces=None)


def test_an_act_that_counts_asks_for_the_strongest_way_unless_it_is_spared(works, clock):
    ada = person(works)
    with works.begin(OPERATOR) as work:
        by_link = sessions.open_session(work, ada)
        by_demo = sessions.open_session(work, ada, method="demo")
        sessions.require_proof(work, by_link)  # a link is all she has
        with pytest.raises(ProofNeeded):
            sessions.require_proof(work, by_demo)
        sessions.require_proof(work, by_demo, spared=frozenset({"demo"}))
        work.actor = sessions.authenticate_session(work, by_link)
        passwords.set_password(work, passwords.hash_new("four unrelated plain words"))
        weaker = sessions.open_session(work, ada)
        with pytest.raises(ProofNeeded) as asked:
            sessions.require_proof(work, weaker)
        assert asked.value.way == "password"
        with pytest.raises(Forbidden):
            sessions.prove_session(work, weaker, method="link")
        sessions.prove_session(work, weaker, method="password")
        sessions.require_proof(work, weaker)
