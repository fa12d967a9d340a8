"""A small world for tests of agreements, grants and access requests: laid down through use cases.

The access officers, two partner organisations, two researchers, one outsider, one track.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from make_release import forget_jobs, make_revision

from databases import START, PostgresServer, copy_database, execute, once
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import upgrade
from stagerelease.db.work import Work, Works
from stagerelease.downloads.tables import Download
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR, Actor
from stagerelease.kernel.clock import SetClock
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import service as partners
from stagerelease.partners.queries import GrantRow, SignatureRow
from stagerelease.partners.texts import SHIPPED, shipped_text
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service

REPO = "gpt2-mini/one"
PEOPLE = {
    "olga": "access_officer",
    "otto": "access_officer",
    "sam": "security",
    "mia": "release_manager",
    "rae": "reviewer",
    "rob": "reviewer",
    "aud": "auditor",
    "rex": "researcher",
    "ron": "researcher",
    "oto": None,
}
ROSTERS = {
    "ann": ("lab-a", "partner_admin"),
    "art": ("lab-a", "partner_member"),
    "bea": ("lab-b", "partner_admin"),
}
LADDER = ("internal", "partner", "researcher", "public")
YEAR = timedelta(days=365)


@dataclass
class World:
    """People by handle with their tokens, and the track that grants are about."""

    works: Works
    tokens: dict[str, str] = field(default_factory=dict)
    track_id: str = ""

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

    def organisation(self, handle: str) -> str:
        """Return the id of the one organisation of a person."""
        (organisation,) = self.actor(handle).organisations
        return organisation

    def climb(self, to: str) -> None:
        """Promote the track to ``to``, by request, two approvals and application."""
        while True:
            with self.works.begin(read_only=True) as work:
                at = LADDER.index(releases.load_track(work, self.track_id).stage)
            if at >= LADDER.index(to):
                return
            with self.begin("mia") as work:
                request = release_service.open_promotion(
                    work, track_id=self.track_id, to=LADDER[at + 1], rationale="Ready."
                )
            for reviewer in ("rae", "rob"):
                with self.begin(reviewer) as work:
                    release_service.approve(
                        work, request.id, request_hash=request.request_hash, comment="Read."
                    )
            with self.begin("mia") as work:
                release_service.apply(work, request.id)

    def sign(self, who: str, agreement: str, **changes: Any) -> SignatureRow:
        """Sign the version in force of ``agreement`` as ``who``."""
        with self.begin(who) as work:
            version = partner_queries.find_in_force(work, agreement)
            assert version is not None
            details: dict[str, Any] = {
                "version_id": version.id,
                "text_sha256": version.text_sha256,
                "typed_name": f"{who} of somewhere",
                "typed_title": "Head of tests",
                "authorised_to_bind": True,
                "consents_electronically": True,
            }
            return partners.sign(work, **(details | changes))

    def issue(self, who: str = "olga", **changes: Any) -> GrantRow:
        """Issue a grant to lab-a for a year, unless ``changes`` say otherwise."""
        with self.begin(who) as work:
            details: dict[str, Any] = {
                "track_id": self.track_id,
                "organisation": None if "person" in changes else "lab-a",
                "purpose": "Measuring detectability.",
                "valid_until": work.now + YEAR,
            }
            return partners.issue_grant(work, **(details | changes))

    def granted(self) -> GrantRow:
        """Bring the track to the partner stage, have lab-a sign, and issue its grant."""
        self.climb("partner")
        self.sign("ann", "model-sharing", organisation="lab-a")
        return self.issue()

    def grant(self, grant_id: str) -> GrantRow:
        """Return a grant as it is now."""
        with self.works.begin(read_only=True) as work:
            return partner_queries.load_grant(work, grant_id)

    def redraft(self, agreement: str, *, material: bool = True, text: str = "New text.") -> str:
        """Put a new version in force and return its id."""
        with self.begin("olga") as work:
            row = partners.draft_version(work, agreement=agreement, text=text, material=material)
            return partners.publish_version(work, row.id).id


def add_download(works: Works, grant: GrantRow, person_id: str, *, at: datetime) -> str:
    """Write what one delivered file leaves behind: the row that ``downloads`` writes."""
    with works.begin(OPERATOR) as work:
        track = releases.load_track(work, grant.track_id)
        row = Download(
            id=f"dl_{at.timestamp():.0f}_{person_id[-6:]}",
            track_id=track.id,
            grant_id=grant.id,
            person_id=person_id,
            revision_id=track.revision_id,
            path="model.safetensors",
            sha256="a" * 64,
            size=9,
            started_at=at,
            bytes_sent=9,
            completed_at=at,
        )
        work.session.add(row)
        return row.id


def lay_down(works: Works) -> World:
    """Lay the world down: track at internal, both agreements in force, nobody signed."""
    made = World(works)
    with works.begin(OPERATOR) as work:
        for slug in ("lab-a", "lab-b"):
            identity.create_organisation(work, slug=slug, name=slug.title())
        for handle in (*PEOPLE, *ROSTERS, "bot"):
            kind = "service" if handle == "bot" else "human"
            identity.create_person(work, handle=handle, display_name=handle.title(), kind=kind)
            _, made.tokens[handle] = identity.create_token(work, person=handle, name="test")
        for handle, role in (*PEOPLE.items(), ("bot", "researcher")):
            if role is not None:
                identity.assign_role(work, person=handle, role=role)
        for handle, (slug, role) in ROSTERS.items():
            identity.add_member(work, organisation=slug, person=handle, role=role)
        release_service.plan_in_force(work, "demo")
        for slug in SHIPPED:
            partners.create_agreement(work, slug=slug, title=slug.replace("-", " ").title())
            version = partners.draft_version(work, agreement=slug, text=shipped_text(slug))
            partners.publish_version(work, version.id)
        make_revision(work, REPO)
        made.track_id = release_service.create_track(work, repo_id=REPO, plan="demo").id
        forget_jobs(work)
    return made


@dataclass(frozen=True)
class Partnered:
    """The world as laid down once: a database to copy, and what it is made of."""

    url: str
    world: World
    server: PostgresServer | None

    @contextmanager
    def copied(self, directory: Path) -> Iterator[str]:
        """Give the URL of a private copy, gone when the block ends."""
        name = f"p{time.time_ns()}"
        if self.server is None:
            target = directory / f"{name}.sqlite3"
            shutil.copy(self.url.removeprefix("sqlite:///"), target)
            yield f"sqlite:///{target}"
            return
        admin = make_engine(self.server.database("postgres"), pool_size=1)
        copy_database(admin, name, self.url.rpartition("/")[2])
        try:
            yield self.server.database(name)
        finally:
            execute(admin, f"DROP DATABASE {name} WITH (FORCE)")
            admin.dispose()


@pytest.fixture(scope="session")
def partnered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Partnered:
    """Lay the world down once in a session; every test works on its own copy."""
    return once(request, "partnered", lambda: _lay_down_once(request, tmp_path_factory))


def _lay_down_once(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Partnered:
    server: PostgresServer | None = None
    if request.config.getoption("--db") == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('partnered') / 'partnered.sqlite3'}"
    else:
        server = request.getfixturevalue("postgres_template")
        admin = make_engine(server.database("postgres"), pool_size=1)
        copy_database(admin, "template_partnered", "template_sr")
        admin.dispose()
        url = server.database("template_partnered")
    engine = make_engine(url, pool_size=2)
    upgrade(engine)
    made = lay_down(Works(engine, SetClock(START)))
    engine.dispose()
    return Partnered(url, made, server)


@pytest.fixture
def database_url(partnered: Partnered, tmp_path: Path) -> Iterator[str]:
    """Stand in for the empty database of the same name: this one holds the world."""
    with partnered.copied(tmp_path) as url:
        yield url


@pytest.fixture
def world(works: Works, partnered: Partnered) -> World:
    """The world, on this test's copy."""
    return World(works, dict(partnered.world.tokens), partnered.world.track_id)
