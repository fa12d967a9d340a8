"""Which models a caller may ask, and what each is: a revision's files, context and terms."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.engine.ports import Checkpoint
from stagerelease.entitlements import service as entitlements
from stagerelease.entitlements.rules import WEIGHTS, Action
from stagerelease.entitlements.service import Entitled, Moved
from stagerelease.kernel.errors import Gated, Invalid, NotFound, Unavailable
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import WITHDRAWN
from stagerelease.releases.queries import storable
from stagerelease.storage.ports import BlobStore

CONFIG = "config.json"
MOST_CONFIG = 1 << 20
MOST_CONTEXT = 1 << 24
_POSITIONS = ("n_positions", "max_position_embeddings", "n_ctx")


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model that the caller may ask, as the list of models shows it.

    ``context`` is how many tokens it can hold, None when its config does not say.
    """

    repo_id: str
    commit: str
    created_at: datetime
    parameters: int | None
    stage: str | None
    context: int | None
    prompt_logging: bool
    grant_id: str | None


def resolve(work: Work, name: str) -> Entitled:
    """Return the revision that a model's name means for this caller, with the decision on it.

    A name is a repository id or an alias of one, and may say a revision: ``repo@revision``.

    Raises:
        NotFound: there is none, or the caller may not know of it.
    """
    repo_id, _, rev = name.partition("@")
    rev = rev or "main"
    if not repo_id or not storable(repo_id) or not storable(rev):
        raise NotFound("There is no model of this name.", reason="repo")
    try:
        return entitlements.see(work, work.actor, repo_id, rev, action=Action.INFER)
    except Moved as moved:
        return entitlements.see(work, work.actor, moved.repo_id, rev, action=Action.INFER)


def checkpoint_of(work: Work, entitled: Entitled) -> Checkpoint:
    """Return the files of a revision as an engine asks for them.

    Raises:
        Invalid: reason ``engine.model``; the revision is no model.
        Unavailable: stored bytes of it do not verify.
    """
    files = catalog.files(work, entitled.revision.id)
    if not any(f.kind == WEIGHTS for f in files) or not any(f.path == CONFIG for f in files):
        raise Invalid(
            f"{entitled.variant.repo_id} holds no weights that can be run.", reason="engine.model"
        )
    known = catalog.find_blobs(work, [f.sha256 for f in files])
    if any(blob.corrupt_at is not None for blob in known.values()):
        raise Unavailable(
            "The stored copy of this model does not verify, so it is not run.",
            retry_after=3600,
            reason="blob.corrupt",
        )
    digests = {f.path: f.sha256 for f in files}
    return Checkpoint(entitled.revision.id, entitled.variant.repo_id, digests)


def prompts_are_kept(work: Work, entitled: Entitled) -> bool:
    """Tell whether the plan keeps what is asked: at the stage a grant admits at, or the present."""
    track = entitled.track
    if track is None or track.stage == WITHDRAWN:
        return False
    plan = releases.plan_of(work, track.plan_version_id)
    name = track.stage
    if entitled.decision.grant_id is not None:
        name = entitlements.stage_of_grant(work, entitled.decision.grant_id) or name
    stage = plan.find(name)
    return stage is not None and stage.prompt_logging


class Contexts:
    """How many tokens models can hold, read once from each config; one per process."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._known: OrderedDict[str, int | None] = OrderedDict()
        self._lock = Lock()

    def of(self, config_sha256: str) -> int | None:
        """Return what the config of that digest says, or None."""
        with self._lock:
            if config_sha256 in self._known:
                return self._known[config_sha256]
        try:
            found = self._read(config_sha256)
        except NotFound:  # it may come back; what it says never changes
            return None
        with self._lock:
            self._known[config_sha256] = found
            while len(self._known) > 1024:
                self._known.popitem(last=False)
        return found

    def _read(self, sha256: str) -> int | None:
        try:
            with self._blobs.open(sha256) as file:
                config = json.loads(file.read(MOST_CONFIG))
        except (ValueError, RecursionError):
            return None
        if not isinstance(config, dict):
            return None
        for name in _POSITIONS:
            value = config.get(name)
            if type(value) is int and 0 < value <= MOST_CONTEXT:
                return value
        return None


def list_models(work: Work, contexts: Contexts) -> list[ModelRow]:
    """Return every model the caller may ask now, in the order of the catalog."""
    rows = [_row(work, contexts, variant.repo_id) for variant in catalog.list_variants(work)]
    return [row for row in rows if row is not None]


def find_model(work: Work, contexts: Contexts, name: str) -> ModelRow:
    """Return one model.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Gated: they may know of it and not ask it; says why.
        Invalid: it is no model that could be run.
    """
    entitled = resolve(work, name)
    if not entitled.decision.allowed:
        raise entitlements.refuse(entitled.decision, work.actor)
    return _row_of(work, contexts, entitled, checkpoint_of(work, entitled))


def _row(work: Work, contexts: Contexts, repo_id: str) -> ModelRow | None:
    try:
        return find_model(work, contexts, repo_id)
    except (Gated, Invalid, NotFound, Unavailable):  # not for them, or not now
        return None


def _row_of(work: Work, contexts: Contexts, entitled: Entitled, checkpoint: Checkpoint) -> ModelRow:
    return ModelRow(
        repo_id=entitled.variant.repo_id,
        commit=entitled.revision.id,
        created_at=entitled.revision.created_at,
        parameters=entitled.revision.parameters,
        stage=entitled.stage,
        context=contexts.of(checkpoint.files[CONFIG]),
        prompt_logging=prompts_are_kept(work, entitled),
        grant_id=entitled.decision.grant_id,
    )
