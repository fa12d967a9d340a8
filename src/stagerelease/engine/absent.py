"""Stands where an engine would be when none can be: refuses every question with the reason."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from stagerelease.engine.ports import Checkpoint, EngineState, Event, Job, Prompt, ScoredToken
from stagerelease.kernel.errors import Unavailable


class AbsentEngine:
    """An ``Engine`` that has nothing to compute with."""

    def __init__(self, why: Unavailable) -> None:
        self._why = why

    def _refusal(self) -> Unavailable:
        why = self._why
        return Unavailable(why.sentence, retry_after=why.retry_after, reason=why.reason)

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:  # noqa: ARG002
        """See the port."""
        raise self._refusal()
        yield  # makes this a generator

    async def score(
        self,
        checkpoint: Checkpoint,  # noqa: ARG002
        texts: Sequence[Prompt],  # noqa: ARG002
        *,
        top: int = 0,  # noqa: ARG002
    ) -> tuple[tuple[ScoredToken, ...], ...]:
        """See the port."""
        raise self._refusal()

    async def state(self) -> EngineState:
        """See the port."""
        return EngineState((), running=0, waiting=0, draining=False)

    async def close(self) -> None:
        """See the port."""
