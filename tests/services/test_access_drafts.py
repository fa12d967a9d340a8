"""Forms, drafts and the confirmation of an address, through the services on a real database."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import yaml
from make_partners import REPO, World, database_url, partnered, world
from make_release import make_revision
from sqlalchemy import func, select
from test_access_review import act, notices, page, sweep
from test_partners import last_leaves

from stagerelease.access import service
from stagerelease.access.abuse import LIMITS, Limited, visitor_of
from stagerelease.access.forms import document_of, shipped_form
from stagerelease.access.rules import CONFIRM_WITHIN, DRAFT_KEPT, MAIL_AGAIN_AFTER
from stagerelease.access.tables import AccessDraft, AccessRequest
from stagerelease.db.tables import HourlyCount
from stagerelease.identity import links
from stagerelease.identity import service as identity
from stagerelease.identity.tables import Person
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR
from stagerelease.kernel.errors import (
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
)
from stagerelease.releases import service as release_service

__all__ = ["database_url", "partnered", "world"]  # fixtures
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
KEY = b"k" * 32
HERE, ELSEWHERE = visitor_of(KEY, "192.0.2.1"), visitor_of(KEY, "198.51.100.1")
GOOD: dict[str, Any] = {
    "name": "Ada Munk",
    "email": "ada@example.org",
    "organisation": "A lab",
    "role": "Reader",
    "purpose": "Telling machine text from human text, at length.",
    "category": "detection",
    "data_use": "GRU",
    "public_output": "paper",
    "storage": "On one encrypted machine that I alone can reach.",
    "no_sharing": "on",
    "report_misuse": "on",
}


@pytest.fixture
def open_world(world: World) -> World:
    """The track is at the researcher stage; nobody has signed."""
    world.climb("researcher")
    return world


@dataclass
class Stranger:
    """Somebody without an account, their draft and its secret."""

    world: World
    draft_id: str = ""
    secret: str = ""

    def save(self, answers: dict[str, Any], visitor=HERE, **options: Any):
        with self.world.works.begin(ANONYMOUS) as work:
            if self.draft_id:
                options = {"draft_id": self.draft_id, "secret": self.secret} | options
            else:
                options = {"repo_id": REPO} | options
            row = service.save_draft(work, answers=answers, visitor=visitor, **options)
        if row.secret:
            self.draft_id, self.secret = row.id, row.secret
        return row

    def submit(self, visitor=HERE, **options: Any):
        with self.world.works.begin(ANONYMOUS) as work:
            return service.submit_draft(
                work, self.draft_id, secret=self.secret, visitor=visitor, **options
            )

    def show(self):
        with self.world.works.begin(ANONYMOUS, read_only=True) as work:
            return service.show_draft(work, self.draft_id, secret=self.secret)

    def token(self) -> str:
        """Return the token in the newest mail about this draft."""
        sent = [
            n
            for n in notices(self.world, f"access_draft:{self.draft_id}")
            if n["event"] == "request.confirm_address"
        ]
        return links.sign_link(KEY, sent[-1]["facts"]["link"])

    def confirm(self, token: str | None = None):
        with self.world.works.begin(ANONYMOUS) as work:
            return service.confirm_address(work, KEY, token or self.token())


@pytest.fixture
def stranger(open_world: World) -> Stranger:
    return Stranger(open_world)


def people(world: World) -> int:
    with world.works.begin(read_only=True) as work:
        return work.session.execute(select(func.count()).select_from(Person)).scalar_one()


# --- forms --------------------------------------------------------------------------------------


def a_form(slug: str, title: str = "Mine") -> str:
    document = document_of(shipped_form()) | {"form": slug, "title": title}
    return yaml.safe_dump(document)


def asked_form(world: World, who: str | None = None, **named: str):
    actor = world.actor(who) if who else ANONYMOUS
    with world.works.begin(actor, read_only=True) as work:
        return service.form_for(work, **(named or {"repo_id": REPO}))


def test_the_shipped_form_is_asked_where_no_other_is(open_world):
    shown = asked_form(open_world)
    assert (shown.repo_id, shown.stored.slug, shown.form.title) == (
        REPO,
        "default",
        "Request access",
    )
    assert shown.form.find("also_wanted") is None, "there is nothing else to choose"
    assert asked_form(open_world, track_id=open_world.track_id) == shown


def test_the_most_particular_form_is_asked(open_world):
    def apply(slug: str, **scope: str) -> None:
        with open_world.begin("olga") as work:
            service.apply_form(work, a_form(slug), **scope)

    for slug, scope in (
        ("every", {}),
        ("stage", {"stage": "researcher"}),
        ("repo", {"repo_id": REPO}),
        ("both", {"repo_id": REPO, "stage": "researcher"}),
    ):
        apply("other", repo_id=REPO, stage="public")
        apply(slug, **scope)
        assert asked_form(open_world).stored.slug == slug
    with open_world.begin("aud", read_only=True) as work:
        rows = {row.slug: row.in_force for row in service.list_forms(work)}
    assert rows["both"] == (f"{REPO} at the researcher stage",)
    assert rows["every"] == ("everything",)


def test_versions_count_up_and_never_change(open_world):
    with open_world.begin("olga") as work:
        one = service.apply_form(work, a_form("mine", "One"))
        same = service.apply_form(work, a_form("mine", "One"))
        two = service.apply_form(work, a_form("mine", "Two"))
        back = service.apply_form(work, a_form("mine", "One"))
    assert [row.version for row in (one, same, two, back)] == [1, 1, 2, 3]
    with open_world.begin("aud", read_only=True) as work:
        assert service.show_form(work, "mine", version=1).form.title == "One"
        assert service.show_form(work, "mine").version == 3
        for missing in ({"slug": "none"}, {"slug": "mine", "version": 4}):
            with pytest.raises(NotFound):
                service.show_form(work, **missing)
    assert asked_form(open_world).stored.id == back.id
    assert last_leaves(open_world, 1)[0][0] == "access_form.applied"


def test_only_who_edits_forms_applies_one(open_world):
    for who in ("mia", "rex", "aud"):
        with pytest.raises(Forbidden), open_world.begin(who) as work:
            service.apply_form(work, a_form("mine"))
    with pytest.raises(Unauthenticated), open_world.works.begin(ANONYMOUS) as work:
        service.apply_form(work, a_form("mine"))
    with open_world.begin("olga") as work:
        for wrong in (a_form("default", "Changed"), a_form("mine").replace("kind: email", "x: y")):
            with pytest.raises(Invalid):
                service.apply_form(work, wrong)
        with pytest.raises(Invalid):
            service.apply_form(work, a_form("mine"), stage="\x00")
        with pytest.raises(NotFound):
            service.apply_form(work, a_form("mine"), repo_id="no/ne")
    assert asked_form(open_world).stored.slug == "default"


def test_a_form_shows_nothing_that_may_not_be_known(world):
    for named in ({"repo_id": REPO}, {"repo_id": "no/ne"}, {"track_id": world.track_id}):
        with pytest.raises(NotFound) as refused:
            asked_form(world, **named)
        assert REPO not in refused.value.sentence or "repo_id" in named
    with pytest.raises(Invalid):
        asked_form(world, repo_id=REPO, track_id=world.track_id)


def test_other_checkpoints_are_offered_to_who_may_know_of_them(open_world):
    with open_world.works.begin(OPERATOR) as work:
        make_revision(work, "gpt2-mini/two")
        release_service.create_track(work, repo_id="gpt2-mini/two", plan="demo")
    assert asked_form(open_world).family == ()
    shown = asked_form(open_world, "aud")
    assert shown.family == ("gpt2-mini/two",)
    field = shown.form.find("also_wanted")
    assert field is not None
    assert [choice.value for choice in field.choices] == ["gpt2-mini/two"]


# --- drafts of strangers ------------------------------------------------------------------------


def test_a_stranger_keeps_a_draft_by_its_secret_alone(stranger):
    begun = stranger.save({"name": "Ada", "purpose": "x" * 10_000, "nonsense": "kept"})
    assert len(begun.secret) == 64
    assert {e.field for e in begun.wrong} >= {"purpose", "nonsense", "email"}
    shown = stranger.show()
    assert shown.answers == {"name": "Ada", "purpose": "x" * 10_000, "nonsense": "kept"}
    assert shown.secret is None
    saved = stranger.save(GOOD)
    assert (saved.wrong, saved.answers) == ((), GOOD)
    with stranger.world.works.begin(read_only=True) as work:
        stored = work.session.execute(select(AccessDraft)).scalar_one()
        assert stranger.secret.encode() not in (stored.secret_sha256 or b"")
        assert len(stored.secret_sha256) == 32
    right = stranger.secret
    for wrong in ("", "0" * 64, right[:-1], "\x00", None):
        stranger.secret = wrong
        for call in (stranger.show, stranger.submit, lambda: stranger.save({})):
            with pytest.raises(NotFound):
                call()
    with pytest.raises(NotFound), stranger.world.begin("rex") as work:
        service.show_draft(work, stranger.draft_id)
    stranger.secret = right
    assert stranger.show().answers == GOOD


@pytest.mark.parametrize(
    "text",
    ["\x00", "\ud800", "'; DROP TABLE access_draft; --", "<img src=x onerror=alert(1)>", "\u202e"],
)
def test_hostile_text_in_every_field_is_kept_and_named(stranger, text):
    typed = dict.fromkeys(GOOD, text) | {text: text}
    row = stranger.save(typed)
    assert len(row.answers) == len(typed)
    assert "\x00" not in str(row.answers.values())
    outcome = stranger.submit()
    assert isinstance(outcome.refused, Invalid)
    assert stranger.show().answers == row.answers


def test_more_than_a_form_asks_for_is_refused_and_the_draft_stays(stranger):
    stranger.save(GOOD)
    for much in ({"purpose": "x" * 20_001}, {str(n): "" for n in range(101)}):
        with pytest.raises(TooLarge):
            stranger.save(much)
    assert stranger.show().answers == GOOD


def test_strangers_begin_only_what_they_may_ask_for(world):
    stranger = Stranger(world)
    with pytest.raises(NotFound):
        stranger.save(GOOD)
    world.climb("public")
    with pytest.raises(Conflict) as refused:
        stranger.save(GOOD)
    assert refused.value.reason == "access.not-gated"
    with pytest.raises(Invalid):
        stranger.save(GOOD, repo_id=None)


def test_a_draft_is_kept_from_its_last_saving_on_and_then_forgotten(stranger, clock):
    stranger.save({"name": "Ada"})
    clock.move(DRAFT_KEPT - DAY)
    stranger.save({"name": "Ada M."})
    clock.move(2 * DAY)
    assert stranger.show().answers == {"name": "Ada M."}
    clock.move(DRAFT_KEPT - 2 * DAY)
    with pytest.raises(NotFound) as refused:
        stranger.show()
    assert refused.value.reason == "access.draft-expired"
    assert [sweep(stranger.world), sweep(stranger.world)] == [1, 0]
    with stranger.world.works.begin(read_only=True) as work:
        stored = work.session.execute(select(AccessDraft)).scalar_one()
        assert (stored.state, stored.answers, stored.secret_sha256) == ("expired", {}, None)
    assert not [n for n in notices(stranger.world) if n["event"] == "request.expired"]


def test_a_draft_is_thrown_away(stranger):
    stranger.save(GOOD)
    with stranger.world.works.begin(ANONYMOUS) as work:
        service.discard_draft(work, stranger.draft_id, secret=stranger.secret)
    with pytest.raises(NotFound):
        stranger.show()


# --- confirming ---------------------------------------------------------------------------------


def test_a_stranger_confirms_and_becomes_a_person_whose_request_waits(stranger, clock):
    stranger.save(GOOD)
    before = people(stranger.world)
    outcome = stranger.submit().check()
    assert (outcome.confirming, outcome.request) == (True, None)
    assert outcome.draft.state == "unconfirmed"
    assert people(stranger.world) == before
    told = notices(stranger.world, f"access_draft:{stranger.draft_id}")
    assert [n["event"] for n in told] == ["request.confirm_address"]
    assert told[0]["facts"]["link_path"] == "/access/confirm"
    assert "ada@example.org" not in str(told)
    clock.move(DAY)
    with stranger.world.works.begin(ANONYMOUS, read_only=True) as work:
        seen = service.show_confirmation(work, KEY, stranger.token())
    assert (seen.repo_id, seen.address) == (REPO, "ada@example.org")
    done = stranger.confirm()
    assert done.made is True
    assert people(stranger.world) == before + 1
    row = done.request
    assert (row.state, row.origin, row.email) == ("submitted", "form", "ada@example.org")
    assert row.display_name == "Ada Munk"
    assert row.handle.startswith("ada-munk-")
    assert row.answers["purpose"] == GOOD["purpose"]
    assert row.answers["no_sharing"] is True
    assert (row.form_id, row.submitted_at) == (outcome.draft.page.stored.id, clock.now())
    shown = page(stranger.world, "olga", row.id)
    assert shown.open == ()
    assert shown.form is not None
    leaves = [name for name, _ in last_leaves(stranger.world, 2)]
    assert leaves == ["access_request.submitted", "person.created"]
    with stranger.world.works.begin(read_only=True) as work:
        stored = work.session.execute(select(AccessDraft)).scalar_one()
        assert (stored.answers, stored.address, stored.secret_sha256) == ({}, None, None)


def test_an_address_with_an_account_gets_the_same_answers_and_no_second_account(stranger):
    stranger.save(GOOD)
    stranger.submit().check()
    first = stranger.confirm()
    with stranger.world.begin("olga") as work:
        service.reject(work, first.request.id, reason="No.", reapply_after=timedelta(0))
    before = people(stranger.world)
    known, unknown = Stranger(stranger.world), Stranger(stranger.world)
    known.save(GOOD | {"email": "Ada@EXAMPLE.org", "name": "Another name"})
    unknown.save(GOOD | {"email": "new@example.org"})
    one, other = known.submit(), unknown.submit()
    assert (one.confirming, one.refused, one.draft.state) == (
        other.confirming,
        other.refused,
        other.draft.state,
    )
    again = known.confirm()
    assert (again.made, again.person_id) == (False, first.person_id)
    assert people(stranger.world) == before
    assert again.request.display_name == "Ada Munk", "a stranger renames nobody"


def test_a_link_works_once_and_only_whole(stranger):
    stranger.save(GOOD)
    stranger.submit().check()
    token = stranger.token()
    for forged in (token[:-1], token + "x", "", "x" * 2000, "\x00", token[::-1]):
        with pytest.raises(DomainError):
            stranger.confirm(forged or "x")
    with pytest.raises(DomainError), stranger.world.works.begin(ANONYMOUS) as work:
        service.confirm_address(work, b"q" * 32, token)
    stranger.confirm(token)
    with pytest.raises(DomainError):
        stranger.confirm(token)
    with stranger.world.works.begin(read_only=True) as work:
        assert work.session.execute(select(func.count()).select_from(AccessRequest)).scalar() == 1


def test_an_address_never_confirmed_is_over_at_its_instant_and_told_once(stranger, clock):
    stranger.save(GOOD)
    stranger.submit().check()
    token = stranger.token()
    clock.move(CONFIRM_WITHIN)
    with pytest.raises(DomainError):
        stranger.confirm(token)
    assert [sweep(stranger.world), sweep(stranger.world)] == [1, 0]
    told = [n for n in notices(stranger.world) if n["event"] == "request.expired"]
    assert [n["subject"] for n in told] == [f"access_draft:{stranger.draft_id}"]
    assert last_leaves(stranger.world, 1)[0][0] == "access_request.expired"
    with pytest.raises(NotFound):
        stranger.show()


def test_a_draft_that_was_changed_must_be_sent_again(stranger, clock):
    stranger.save(GOOD)
    stranger.submit().check()
    old = stranger.token()
    assert stranger.save(GOOD | {"email": "other@example.org"}).state == "open"
    with pytest.raises(Conflict) as refused:
        stranger.confirm(old)
    assert refused.value.reason == "access.draft-changed"
    clock.move(MAIL_AGAIN_AFTER)
    stranger.submit().check()
    with pytest.raises(Conflict):
        stranger.confirm(old)
    assert stranger.confirm().request.email == "other@example.org"


def test_sending_twice_sends_once(stranger, clock):
    stranger.save(GOOD)
    for _ in range(3):
        assert stranger.submit().check().confirming
    assert len(notices(stranger.world, f"access_draft:{stranger.draft_id}")) == 1
    clock.move(MAIL_AGAIN_AFTER)
    assert stranger.submit().check().confirming
    assert len(notices(stranger.world, f"access_draft:{stranger.draft_id}")) == 2


def test_two_clicks_at_once_confirm_once(stranger):
    stranger.save(GOOD)
    stranger.submit().check()
    token, results, barrier = stranger.token(), [], threading.Barrier(2)

    def click() -> None:
        barrier.wait()
        try:
            results.append(stranger.confirm(token).request.state)
        except DomainError as error:
            results.append(type(error).__name__)

    threads = [threading.Thread(target=click) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 2
    assert results.count("submitted") == 1


def test_a_disabled_account_sends_nothing(stranger):
    stranger.save(GOOD)
    stranger.submit().check()
    first = stranger.confirm()
    with stranger.world.works.begin(OPERATOR) as work:
        identity.disable_person(work, first.request.handle)
    again = Stranger(stranger.world)
    again.save(GOOD)
    again.submit().check()
    with pytest.raises(Forbidden) as refused:
        again.confirm()
    assert refused.value.reason == "account.disabled"
    assert again.show().answers == GOOD


def test_one_request_waits_at_a_time_and_the_other_draft_is_kept(stranger):
    stranger.save(GOOD)
    stranger.submit().check()
    stranger.confirm()
    again = Stranger(stranger.world)
    again.save(GOOD | {"purpose": "Something else, of the same length."})
    again.submit().check()
    with pytest.raises(Conflict) as refused:
        again.confirm()
    assert refused.value.reason == "access.waits"
    assert again.show().answers["purpose"].startswith("Something else")


# --- limits -------------------------------------------------------------------------------------


def test_a_network_begins_so_many_drafts_an_hour(open_world, clock):
    most = LIMITS[Limited.DRAFT].network
    for _ in range(most):
        Stranger(open_world).save({})
    with pytest.raises(TooMany) as refused:
        Stranger(open_world).save({})
    assert refused.value.reason == "access.too-many-network"
    assert refused.value.retry_after == 3600
    Stranger(open_world).save({}, visitor=ELSEWHERE)
    clock.move(HOUR - timedelta(seconds=1))
    with pytest.raises(TooMany) as refused:
        Stranger(open_world).save({})
    assert refused.value.retry_after == 1
    clock.move(timedelta(seconds=1))
    Stranger(open_world).save({})
    clock.move(DAY)
    sweep(open_world)
    with open_world.works.begin(read_only=True) as work:
        assert work.session.execute(select(func.count()).select_from(HourlyCount)).scalar() == 0


def test_an_address_gets_so_many_mails_an_hour_and_nothing_typed_is_lost(open_world, clock):
    most = LIMITS[Limited.MAIL].address
    for n in range(most):
        one = Stranger(open_world)
        one.save(GOOD, visitor=visitor_of(KEY, f"10.{n}.0.1"))
        one.submit(visitor=visitor_of(KEY, f"10.{n}.0.1")).check()
    late = Stranger(open_world)
    late.save({})
    outcome = late.submit(answers=GOOD | {"email": "ADA@example.org"}, visitor=ELSEWHERE)
    assert isinstance(outcome.refused, TooMany)
    assert outcome.refused.reason == "access.too-many-address"
    with pytest.raises(TooMany):
        outcome.check()
    assert late.show().answers == GOOD | {"email": "ADA@example.org"}
    clock.move(HOUR)
    assert late.submit().check().confirming
    with open_world.works.begin(read_only=True) as work:
        keys = work.session.execute(select(HourlyCount.key)).scalars().all()
    assert not [key for key in keys if "example" in key or "10." in key]


# --- drafts of people ---------------------------------------------------------------------------


def drafted(world: World, who: str, answers: dict[str, Any], **options: Any):
    with world.begin(who) as work:
        return service.save_draft(work, answers=answers, repo_id=REPO, **options)


def test_somebody_signed_in_needs_no_secret_and_no_mail(open_world):
    assert act_find(open_world, "rex") is None
    row = drafted(open_world, "rex", {"name": "Rex"})
    assert row.secret is None
    assert drafted(open_world, "rex", GOOD).id == row.id, "they continue the draft they began"
    assert act_find(open_world, "rex").answers == GOOD
    assert drafted(open_world, "ron", {}).id != row.id
    for who in ("ron", "olga"):
        with pytest.raises(NotFound):
            act(open_world, who, service.show_draft, row.id)
    done = act(open_world, "rex", service.submit_draft, row.id).check()
    assert (done.request.state, done.request.applicant_id) == ("submitted", open_world.id("rex"))
    again = act(open_world, "rex", service.submit_draft, row.id).check()
    assert again.request == done.request
    with pytest.raises(Conflict), open_world.begin("rex") as work:
        service.save_draft(work, answers={}, draft_id=row.id)
    assert act_find(open_world, "rex") is None


def act_find(world: World, who: str):
    with world.begin(who) as work:
        return service.find_draft(work, repo_id=REPO)


def test_a_second_request_does_not_swallow_the_first(open_world):
    with open_world.begin("rex") as work:
        waiting = service.submit(work, repo_id=REPO, answers={"purpose": "First."})
    row = drafted(open_world, "rex", GOOD)
    outcome = act(open_world, "rex", service.submit_draft, row.id)
    assert outcome.refused.reason == "access.waits"
    act(open_world, "rex", service.withdraw, waiting.id)
    assert act(open_world, "rex", service.submit_draft, row.id).check().request is not None


def test_wrong_answers_are_stored_and_named(open_world):
    row = drafted(open_world, "rex", GOOD | {"email": "nonsense"})
    outcome = act(
        open_world, "rex", service.submit_draft, row.id, answers=GOOD | {"category": "none"}
    )
    assert [e.field for e in outcome.refused.fields] == ["category"]
    assert act_find(open_world, "rex").answers == GOOD | {"category": "none"}
    with pytest.raises(Invalid):
        outcome.check()


def test_services_and_shells_draft_nothing(open_world):
    for who in ("bot", "operator"):
        with pytest.raises(Forbidden):
            drafted(open_world, who, GOOD)


def test_answers_keep_the_form_they_were_given_to(open_world):
    row = drafted(open_world, "rex", GOOD)
    with open_world.begin("olga") as work:
        mine = service.apply_form(work, a_form("mine"))
    done = act(open_world, "rex", service.submit_draft, row.id).check()
    assert done.request.form_id == mine.id, "what is asked now, not what was asked then"
    with open_world.begin("olga") as work:
        service.apply_form(work, a_form("mine", "Another"))
    shown = page(open_world, "olga", done.request.id)
    assert shown.form is not None
    assert (shown.form.version, shown.form.form.title) == (1, "Mine")


def test_short_answers_leave_fields_open_for_the_reviewer(open_world):
    with open_world.begin("rex") as work:
        row = service.submit(
            work, repo_id=REPO, answers={"Full name": "Rex", "Affiliation": "A lab"}
        )
    assert row.answers == {"name": "Rex", "Affiliation": "A lab"}
    assert "purpose" in page(open_world, "olga", row.id).open
    assert "name" not in page(open_world, "olga", row.id).open
    with open_world.works.begin(read_only=True) as work:
        payloads = [job.payload for job in work.session.query(Job)]
    (told,) = [p for p in payloads if p.get("event") == "request.received"]
    assert told["people"] == [row.applicant_id]
    missing = told["facts"]["missing"]
    purpose = page(open_world, "olga", row.id).form.form.find("purpose").label
    assert missing.startswith(" Answers are missing: ")
    assert purpose in missing
    assert "Full name" not in missing


def test_a_request_in_one_step_needs_every_answer(open_world):
    with pytest.raises(Invalid) as refused, open_world.begin("rex") as work:
        service.submit_whole(work, repo_id=REPO, answers=GOOD | {"email": "nonsense"})
    assert [e.field for e in refused.value.fields] == ["email"]
    with open_world.begin("rex") as work:
        row = service.submit_whole(work, repo_id=REPO, answers=GOOD)
        assert service.submit_whole(work, repo_id=REPO, answers={}) == row  # it waits already
    assert page(open_world, "olga", row.id).open == ()
