"""What the rest of the house may ask of something that computes text with a model. Pure.

An engine knows checkpoints by their files' digests and nothing of people, grants or stages: whoever
asks has decided already. Two adapters keep this promise and pass one suite: ``local`` (torch, in a
process of its own) and ``remote`` (any server that speaks the OpenAI completions protocol, ours
among them).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

MOST_LOGPROBS = 20
"""Alternatives per token that can be asked for."""
MOST_SEQUENCES = 128
"""Sequences (prompts × n) of one job."""

Prompt = str | tuple[int, ...]
"""Text, or the ids of its tokens."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Which model: a revision by its 40-hex id, what people call it, and its files' digests."""

    commit: str
    repo_id: str
    files: Mapping[str, str]  # path -> sha256 of a stored blob


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Penalties are applied first, then bias, then temperature, then top_k, top_p and min_p.
    ``temperature`` 0 takes the likeliest token. With a ``seed`` the choice depends on the seed, the
    number of the sequence in its job and the position alone, never on what else is computed.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: every token
    min_p: float = 0.0
    repetition_penalty: float = 1.0  # over prompt and answer (CTRL, Keskar et al. 2019, §4.1)
    presence_penalty: float = 0.0  # over the answer
    frequency_penalty: float = 0.0  # over the answer
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Continue each of ``prompts`` in ``n`` ways.

    Sequence ``i`` belongs to prompt ``i // n``. ``logprobs``: how many alternatives to tell beside
    each token (0: the token's own figure alone; None: nothing). ``echo`` sends the prompt back
    first, with figures when ``logprobs`` is given. ``stop`` texts end a sequence and are not sent.
    What was computed for a prompt's beginning is used again only between jobs of one
    ``cache_salt``: how soon an answer comes must tell nobody what others have asked.
    """

    checkpoint: Checkpoint
    prompts: Sequence[Prompt]
    n: int = 1
    max_tokens: int = 16
    sampling: Sampling = Sampling()
    stop: Sequence[str] = ()
    logprobs: int | None = None
    echo: bool = False
    cache_salt: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer (or of an echoed prompt) with its natural-log probability.

    ``logprob`` is of the model's own distribution, before penalties, bias and temperature; None for
    a prompt's first token. ``top`` lists the likeliest tokens and their figures, likeliest first.
    ``text`` is what the token adds to the text; the bytes of an unfinished character appear as
    ``bytes:\\xNN``.
    """

    id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """The job was taken: how many tokens each prompt has."""

    prompt_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """More of one sequence. ``text`` never ends within a character; it may be empty.

    ``computed``: how many new tokens that took since the sequence's last piece. A piece comes for
    each, also while text is held back, so that what was computed is known whenever it is ended.
    """

    index: int
    text: str
    tokens: tuple[Token, ...] = ()
    computed: int = 1


@dataclass(frozen=True, slots=True)
class Ended:
    """One sequence is complete: why, and how many tokens were computed for it.

    ``reused``: how many tokens of its prompt were in store already, told by the first sequence of
    each prompt only.
    """

    index: int
    reason: Literal["stop", "length"]
    completion_tokens: int
    reused: int = 0


Event = Admitted | Piece | Ended


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a given text: its log-probability and its rank (0: the likeliest) after its
    prefix, both None for the first; and the likeliest alternatives.
    """

    id: int
    text: str
    logprob: float | None
    rank: int | None
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelState:
    """How ready one checkpoint is: ``loading`` (with the share done) or ``ready``."""

    commit: str
    state: Literal["loading", "ready"]
    progress: float
    bytes: int
    dtype: str


@dataclass(frozen=True, slots=True)
class EngineState:
    """What an engine is doing now.

    ``running`` and ``waiting`` count sequences. ``figures`` are an adapter's own gauges for the
    operator, by snake_case name (steps, batch size, share of the cache in use), and may be empty.
    """

    models: tuple[ModelState, ...]
    running: int
    waiting: int
    draining: bool
    figures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


class Engine(Protocol):
    """Something that computes text. Safe to call from many tasks of one event loop.

    Refusals are domain errors raised before the first event: ``Invalid`` with reason
    ``engine.context`` (prompt and max_tokens do not fit), ``engine.token`` (an id the model does
    not have), ``engine.empty`` (a prompt of no tokens), ``engine.parameter`` (a figure out of every
    range, see ``rules.require_sound``) or ``engine.model`` (files it cannot run);
    ``TooMany`` with ``engine.full``; ``Unavailable`` with ``engine.loading``, ``engine.memory``,
    ``engine.draining`` or ``engine.away``. After the first event only ``Unavailable`` is raised.
    """

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Yield ``Admitted``, then pieces as they come, and ``Ended`` once per sequence.

        Closing the generator (or cancelling its task) stops the work within one token.
        """
        ...

    async def score(
        self, checkpoint: Checkpoint, texts: Sequence[Prompt], *, top: int = 0
    ) -> tuple[tuple[ScoredToken, ...], ...]:
        """Return every token of each text with its log-probability and rank."""
        ...

    async def state(self) -> EngineState:
        """Return what the engine is doing now."""
        ...

    async def close(self) -> None:
        """Let what runs finish within the grace the adapter was given, then stop."""
        ...
