"""A small world for tests of release control: people with roles, one revision, one track.

It is laid down once in a test session; each test (and each example of a state machine) gets a copy.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, make_url, select

from databases import START, PostgresServer, copy_database, execute, once
from stagerelease.catalog import service as catalog
from stagerelease.catalog.rules import NewFile
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import upgrade
from stagerelease.db.work import Work, Works
from stagerelease.identity import service as identity
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR, Actor
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.ids import new_id
from stagerelease.ledger.tables import LogLeaf
from stagerelease.partners.tables import Agreement, AgreementVersion, Grant, GrantEvent, Signature
from stagerelease.releases import queries, service
from stagerelease.releases.planning import record_version
from stagerelease.releases.queries import TrackRow

PLAN = """
plan: ours
title: Ours
request_lifetime: P30D
stages:
  - {name: internal, audience: staff}
  - {name: partner, audience: organisations, agreement: model-sharing}
  - name: public
    audience: everyone
    minimum_dwell: P14D
    gates:
      - {kind: manual, key: card-read, question: Did somebody else read the card}
"""
PEOPLE = {
    "mia": ("release_manager",),
    "max": ("release_manager", "reviewer"),
    "rae": ("reviewer",),
    "rob": ("reviewer",),
    "roy": ("reviewer",),
    "sam": ("security",),
    "sue": ("security",),
    "ola": ("owner",),
    "aud": ("auditor",),
    "nia": (),
}
REPO = "gpt2-mini/one"


@dataclass
class Staff:
    """People by handle, with the tokens they act by."""

    works: Works
    tokens: dict[str, str] = field(default_factory=dict)

    def actor(self, handle: str) -> Actor:
        """Return who ``handle`` is right now; ``operator`` is the shell on the host."""
        if handle == "operator":
            return OPERATOR
        with self.works.begin(read_only=True) as work:
            return identity.authenticate(work, self.tokens[handle])

    @contextmanager
    def begin(self, handle: str, **options: Any) -> Iterator[Work]:
        """Open a Work of ``handle``, who is authenticated inside it, as the web's door does."""
        with self.works.begin(OPERATOR, **options) as work:
            if handle != "operator":
                work.actor = identity.authenticate(work, self.tokens[handle])
            yield work

    def id(self, handle: str) -> str:
        """Return the id of a person."""
        return self.actor(handle).id


def make_staff(works: Works) -> Staff:
    """Add everybody of ``PEOPLE``, and a service account that holds the role reviewer."""
    staff = Staff(works)
    with works.begin(OPERATOR) as work:
        for handle, roles in (*PEOPLE.items(), ("bot", ("reviewer",))):
            kind = "service" if handle == "bot" else "human"
            identity.create_person(work, handle=handle, display_name=handle, kind=kind)
            for role in roles:
                identity.assign_role(work, person=handle, role=role)
            _, staff.tokens[handle] = identity.create_token(work, person=handle, name="test")
        forget_jobs(work)
    return staff


def forget_jobs(work: Work) -> None:
    """Drop what laying a world down told people: tests count what happens in it."""
    work.session.flush()
    work.session.execute(delete(Job))


def make_revision(work: Work, repo_id: str = REPO, *, salt: str = "a") -> str:
    """Record a revision with a weight file and a card, and return its id."""
    family = repo_id.partition("/")[0]
    catalog.ensure_family(work, family_id=family, name=family)
    variant = catalog.ensure_variant(work, family_id=family, label="one", repo_id=repo_id)
    row = catalog.record_revision(
        work,
        variant_id=variant.id,
        files=[
            NewFile("model.safetensors", 9, salt * 64, "1" * 40, True, "weights"),
            NewFile("README.md", 3, "c" * 64, "2" * 40, False, "model_card"),
        ],
        message="First",
        parent_id=None,
        parameters=9,
    )
    return row.id


def make_track(works: Works, *, repo_id: str = REPO, plan: str = PLAN, salt: str = "a") -> TrackRow:
    """Apply ``plan`` and start a track of a fresh revision under it."""
    with works.begin(OPERATOR) as work:
        version = record_version(work, plan)
        make_revision(work, repo_id, salt=salt)
        return service.create_track(work, repo_id=repo_id, plan=version.slug)


def make_grant(
    works: Works,
    track_id: str,
    audience: str,
    person_id: str,
    *,
    starts: datetime | None = None,
    state: str = "active",
) -> None:
    """Let somebody in at ``audience``: the rows that a grant is, with what it must rest on.

    Grants are issued by ``partners``, a floor above; only their dates and steps matter here.
    """
    with works.begin(OPERATOR) as work:
        agreement = Agreement(
            id=new_id("agr"), slug=new_id("s")[:60], title="Terms", created_at=work.now
        )
        version = AgreementVersion(
            id=new_id("agv"),
            agreement_id=agreement.id,
            version=1,
            text="Terms",
            text_sha256="0" * 64,
            state="in_force",
            duo_codes=[],
            created_at=work.now,
        )
        signature = Signature(
            id=new_id("sig"),
            agreement_version_id=version.id,
            person_id=person_id,
            typed_name="Nia",
            typed_title="Dr",
            authorised_to_bind=True,
            consents_electronically=True,
            text_sha256="0" * 64,
            method="token",
            state="in_force",
            signed_at=work.now,
            leaf_idx=0,
        )
        for row in (agreement, version, signature):
            work.session.add(row)
            work.session.flush()
        begins = starts or work.now
        grant_id = new_id("grt")
        work.session.add(
            Grant(
                id=grant_id,
                person_id=person_id,
                track_id=track_id,
                audience=audience,
                permissions=["download"],
                purpose="Reading",
                signature_id=signature.id,
                state=state,
                valid_from=begins,
                valid_until=begins + timedelta(days=365),
                created_by="operator",
                created_at=work.now,
            )
        )
        work.session.flush()  # its steps refer to it
        work.session.add(
            GrantEvent(
                id=new_id("gev"),
                grant_id=grant_id,
                from_state="pending" if state == "active" else None,
                to_state=state,
                reason="Issued.",
                actor_id="operator",
                at=begins,
                leaf_idx=0,
            )
        )


def leaves_of(work: Work, since: int = 0) -> list[str]:
    """Return the types of the log's leaves, in order, from index ``since``."""
    bodies = work.session.execute(
        select(LogLeaf.body).where(LogLeaf.idx >= since).order_by(LogLeaf.idx)
    ).scalars()
    return [json.loads(body)["type"] for body in bodies]


def leaves(works: Works, since: int = 0) -> list[str]:
    """Return the same in a Work of its own."""
    with works.begin(read_only=True) as work:
        return leaves_of(work, since)


def log_size(works: Works) -> int:
    """Return how many leaves the log has."""
    with works.begin(read_only=True) as work:
        return work.session.execute(select(func.count()).select_from(LogLeaf)).scalar_one()


def stage_of(works: Works, track_id: str) -> str:
    """Return the stage of a track."""
    with works.begin(read_only=True) as work:
        return queries.load_track(work, track_id).stage


@dataclass(frozen=True)
class Staffed:
    """The world as laid down once: a database to copy, the tokens of its people, its track."""

    url: str
    tokens: dict[str, str]
    track_id: str
    server: PostgresServer | None

    @contextmanager
    def copied(self, directory: Path) -> Iterator[str]:
        """Give the URL of a private copy, gone when the block ends."""
        name = f"c{time.time_ns()}"
        url = (
            f"sqlite:///{directory / name}.sqlite3"
            if self.server is None
            else self.server.database(name)
        )
        self.restore(url)
        try:
            yield url
        finally:
            self._remove(url)

    def restore(self, url: str) -> None:
        """Make what ``url`` names a fresh copy; nothing may be connected to it."""
        self._remove(url)
        if self.server is None:
            shutil.copy(self.url.removeprefix("sqlite:///"), url.removeprefix("sqlite:///"))
            return
        with self._administering() as admin:
            copy_database(admin, str(make_url(url).database), str(make_url(self.url).database))

    def _remove(self, url: str) -> None:
        if self.server is not None:
            with self._administering() as admin:
                execute(admin, f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")
            return
        for suffix in ("", "-wal", "-shm"):
            Path(url.removeprefix("sqlite:///") + suffix).unlink(missing_ok=True)

    @contextmanager
    def _administering(self) -> Iterator[Engine]:
        assert self.server is not None
        admin = make_engine(self.server.database("postgres"), pool_size=1)
        yield admin
        admin.dispose()


@pytest.fixture(scope="session")
def staffed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Staffed:
    """Lay the world down once in a session, through the real use cases."""
    return once(request, "staffed", lambda: _lay_down_once(request, tmp_path_factory))


def _lay_down_once(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Staffed:
    server: PostgresServer | None = None
    if request.config.getoption("--db") == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('staffed') / 'staffed.sqlite3'}"
    else:
        server = request.getfixturevalue("postgres_template")
        admin = make_engine(server.database("postgres"), pool_size=1)
        copy_database(admin, "template_staffed", "template_sr")
        admin.dispose()
        url = server.database("template_staffed")
    engine = make_engine(url, pool_size=2)
    upgrade(engine)
    works = Works(engine, SetClock(START))
    staff = make_staff(works)
    track = make_track(works)
    engine.dispose()
    return Staffed(url, staff.tokens, track.id, server)


@pytest.fixture
def database_url(staffed: Staffed, tmp_path: Path) -> Iterator[str]:
    """Stand in for the empty database of the same name: this one is staffed."""
    with staffed.copied(tmp_path) as url:
        yield url


@pytest.fixture
def staff(works: Works, staffed: Staffed) -> Staff:
    """The people of the world, acting on this test's copy."""
    return Staff(works, dict(staffed.tokens))


@pytest.fixture
def track(works: Works, staffed: Staffed) -> TrackRow:
    """The track of the world, at its first stage."""
    with works.begin(read_only=True) as work:
        return queries.load_track(work, staffed.track_id)
