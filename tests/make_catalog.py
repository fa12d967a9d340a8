"""Small checkpoints and repositories for tests of the catalog."""

from __future__ import annotations

from pathlib import Path

from stagerelease.catalog import queries, service, synthesize
from stagerelease.catalog.queries import VariantRow
from stagerelease.db.work import Works
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR, Actor
from stagerelease.storage.local import LocalBlobStore

TINY = synthesize.small_config(layers=1, width=8, heads=2, vocabulary=300, positions=16)
TINY_PARAMETERS = 300 * 8 + 16 * 8 + (12 * 64 + 13 * 8) + 16
REPO = "acme/tiny"


def make_checkpoint(directory: Path, *, seed: int = 0, config: dict | None = None) -> Path:
    """Write a tiny checkpoint with everything a Hub repository has."""
    synthesize.synthesize_config(config or TINY, directory, seed=seed)
    return directory


def make_repo(works: Works, *, repo_id: str = REPO, parameters: int | None = None) -> VariantRow:
    with works.begin(OPERATOR) as work:
        owner = repo_id.partition("/")[0]
        service.ensure_family(work, family_id=owner, name=owner)
        return service.ensure_variant(
            work, family_id=owner, label="tiny", repo_id=repo_id, parameters=parameters
        )


def make_staff(works: Works, *, handle: str = "rm", role: str = "release_manager") -> str:
    """Make a person with a role and return a token of theirs."""
    with works.begin(OPERATOR) as work:
        identity.create_person(work, handle=handle, display_name=handle)
        identity.assign_role(work, person=handle, role=role)
        return identity.create_token(work, person=handle, name="test")[1]


def make_actor(works: Works, **kwargs: str) -> Actor:
    token = make_staff(works, **kwargs)
    with works.begin(quiet=True) as work:
        return identity.authenticate(work, token)


def stored(blobs: LocalBlobStore) -> dict[str, int]:
    """Every blob file in the store, and every partial, by name."""
    return {p.name: p.stat().st_size for p in blobs.root.rglob("*") if p.is_file()}


def head_of(works: Works, repo_id: str = REPO) -> str | None:
    with works.begin(OPERATOR, read_only=True) as work:
        return queries.find_ref(work, queries.load_variant(work, repo_id).id, "main")
