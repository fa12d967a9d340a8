"""Per-token log-probabilities and ranks of given texts: for the face, and for detection to come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from anyio import to_thread

from stagerelease.db.work import Work, Works
from stagerelease.engine.ports import Engine, Prompt, ScoredToken
from stagerelease.inference.admitting import Asked, House, Permit, finish, prepare
from stagerelease.inference.models import Contexts
from stagerelease.kernel.errors import DomainError, Unavailable

Begin = Callable[[], AbstractContextManager[Work]]
"""Opens the quiet Work, with the caller in it, that a request is let through in."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The figures of each text, in order, and the permit they were computed under."""

    permit: Permit
    texts: tuple[tuple[ScoredToken, ...], ...]

    @property
    def tokens(self) -> int:
        """Return how many tokens were scored."""
        return sum(len(text) for text in self.texts)


def bound_of(prompt: Prompt) -> int:
    """Return the most tokens a prompt can have: a byte-level vocabulary needs one per byte."""
    return len(prompt.encode()) if isinstance(prompt, str) else len(prompt)


async def score(
    begin: Begin,
    works: Works,
    engine: Engine,
    contexts: Contexts,
    house: House,
    *,
    model: str,
    texts: Sequence[Prompt],
    top: int = 0,
) -> Scored:
    """Return every token of each text with its log-probability and rank, under the caller's quota.

    Raises:
        as ``admitting.prepare`` and the engine's port.
    """
    asked = Asked(
        model=model,
        kind="score",
        bounds=[bound_of(text) for text in texts],
        prompts=[text if isinstance(text, str) else repr(list(text)) for text in texts],
    )

    def admit() -> Permit:
        with begin() as work:
            return prepare(work, contexts, asked, house)

    permit = await to_thread.run_sync(admit)
    began, outcome, tokens = time.monotonic(), "failed", 0
    try:
        async with asyncio.timeout(house.longest.total_seconds()):
            scored = Scored(permit, await engine.score(permit.checkpoint, texts, top=top))
        outcome, tokens = "completed", scored.tokens
        return scored
    except DomainError as refused:
        outcome = refused.reason
        raise
    except TimeoutError:
        outcome = "timeout"
        raise Unavailable("Scoring took too long and was stopped.", reason="timeout") from None
    except asyncio.CancelledError:
        outcome = "client_left"
        raise
    finally:
        record = partial(
            finish,
            works,
            permit.request_id,
            prompt_tokens=tokens,
            completion_tokens=0,
            milliseconds=int((time.monotonic() - began) * 1000),
            outcome=outcome,
        )
        await asyncio.shield(asyncio.ensure_future(to_thread.run_sync(record)))
