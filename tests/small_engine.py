"""A small engine that keeps every promise of the port: a bigram model over bytes.

It is a working simulator, not a stand-in that returns what a test expects: it counts pairs of bytes
in a short text, samples from what it counted, and admits, seeds, stops, scores and cancels as the
port says. Its tokens are bytes, so that characters really are split between tokens.
"""

from __future__ import annotations

import asyncio
import codecs
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from stagerelease.engine.ports import (
    Admitted,
    Checkpoint,
    Ended,
    EngineState,
    Event,
    Job,
    ModelState,
    Piece,
    Prompt,
    Sampling,
    ScoredToken,
    Token,
)
from stagerelease.engine.rules import require_sound, require_texts
from stagerelease.kernel.errors import FieldError, Invalid, TooMany, Unavailable

END = 256
VOCABULARY = 257
TEXT = (
    "In a shocking finding, scientists discovered a herd of unicorns living in a remote valley. "
    "They spoke perfect English, and some of them a little café French: « Où est l'hôtel ? » 🦄 "
    "The researchers were surprised – naïve, perhaps – by what the unicorns said. Ωμέγα! "
)


class Bigrams:
    """Natural-log probabilities of each byte after each byte; a little different per model."""

    def __init__(self, name: str) -> None:
        counts = Counter(zip(TEXT.encode(), TEXT.encode()[1:] + b"I", strict=True))
        own = random.Random(name)
        self.rows = []
        for before in range(VOCABULARY):
            weights = [counts.get((before, after), 0) + 0.002 for after in range(VOCABULARY)]
            weights[END] = 0.05 if before == ord(".") else 0.0001
            weights = [weight * own.uniform(0.9, 1.1) for weight in weights]
            total = math.log(sum(weights))
            self.rows.append([math.log(weight) - total for weight in weights])


def text_of(token: int) -> str:
    if token == END:
        return "<|end|>"
    return chr(token) if token < 128 else f"bytes:\\x{token:02x}"


@dataclass
class Line:
    """One sequence under way."""

    index: int
    ids: list[int]
    prompt: int
    decoder: codecs.IncrementalDecoder
    held: str = ""  # text that may yet turn out to begin a stop
    waiting: list[Token] = field(default_factory=list)
    ended: bool = False


class SmallEngine:
    """See the module."""

    def __init__(
        self,
        *,
        context: int = 512,
        step: float = 0.0,
        most_running: int = 128,
        most_waiting: int = 128,
        load_seconds: float = 0.0,
        grace: float = 5.0,
    ) -> None:
        self.context, self.step, self.load_seconds, self.grace = context, step, load_seconds, grace
        self.most_running, self.most_waiting = most_running, most_waiting
        self.models: dict[str, Bigrams] = {}
        self.ready_at: dict[str, float] = {}
        self.running = self.waiting = 0
        self.steps = 0
        self.stopped_early = 0
        self.draining = self.ended = False
        self.changed = asyncio.Condition()

    # --- the port

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        require_sound(job)
        model = self._model(job.checkpoint)
        prompts = [self._ids(prompt) for prompt in job.prompts]
        for token in job.sampling.logit_bias:
            self._require_known([token], "logit_bias")
        for ids in prompts:
            if len(ids) + job.max_tokens > self.context:
                raise Invalid(
                    f"{len(ids)} tokens of prompt and {job.max_tokens} new ones are more than the "
                    f"{self.context} this model can hold.",
                    reason="engine.context",
                )
        count = len(prompts) * job.n
        await self._enter(count)
        try:
            yield Admitted(tuple(len(ids) for ids in prompts))
            async for event in self._run(model, job, prompts):
                yield event
        except (GeneratorExit, asyncio.CancelledError):
            self.stopped_early += 1
            raise
        finally:
            self.running -= count
            await self._tell()

    async def score(
        self, checkpoint: Checkpoint, texts: Sequence[Prompt], *, top: int = 0
    ) -> tuple[tuple[ScoredToken, ...], ...]:
        require_texts(texts, top)
        model = self._model(checkpoint)
        every = [self._ids(text) for text in texts]
        if any(len(ids) > self.context for ids in every):
            raise Invalid("The text is longer than the context.", reason="engine.context")
        return tuple(tuple(self._scored(model, ids, top)) for ids in every)

    async def state(self) -> EngineState:
        models = []
        for commit, at in self.ready_at.items():
            left = at - time.monotonic()
            done = 1.0 if left <= 0 else max(0.0, 1 - left / self.load_seconds)
            state = "ready" if left <= 0 else "loading"
            models.append(ModelState(commit, state, done, 8 * VOCABULARY**2, "float64"))
        figures = {"steps": float(self.steps)}
        return EngineState(tuple(models), self.running, self.waiting, self.draining, figures)

    async def close(self) -> None:
        self.draining = True
        await self._tell()
        try:
            async with asyncio.timeout(self.grace), self.changed:
                await self.changed.wait_for(lambda: self.running + self.waiting == 0)
        except TimeoutError:
            self.ended = True

    # --- admission

    async def _enter(self, count: int) -> None:
        if self.draining:
            raise Unavailable("The engine is stopping.", retry_after=5, reason="engine.draining")
        if count > self.most_running or (
            self.running + count > self.most_running and self.waiting + count > self.most_waiting
        ):
            raise TooMany("The queue is full.", retry_after=1, reason="engine.full")
        if self.running + count > self.most_running:
            self.waiting += count
            try:
                async with self.changed:
                    await self.changed.wait_for(
                        lambda: self.draining or self.running + count <= self.most_running
                    )
            finally:
                self.waiting -= count
            if self.draining:
                raise Unavailable("The engine is stopping.", reason="engine.draining")
        self.running += count

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def _model(self, checkpoint: Checkpoint) -> Bigrams:
        if "config.json" not in checkpoint.files:
            raise Invalid("These files are no model this engine can run.", reason="engine.model")
        commit = checkpoint.commit
        at = self.ready_at.setdefault(commit, time.monotonic() + self.load_seconds)
        if at > time.monotonic():
            wait = math.ceil(at - time.monotonic())
            raise Unavailable(
                "The model is being loaded.", retry_after=wait, reason="engine.loading"
            )
        return self.models.setdefault(commit, Bigrams(commit))

    def _ids(self, prompt: Prompt) -> list[int]:
        ids = list(prompt.encode() if isinstance(prompt, str) else prompt)
        self._require_known(ids)
        return ids

    @staticmethod
    def _require_known(ids: Sequence[int], param: str | None = None) -> None:
        if unknown := [token for token in ids if not 0 <= token < VOCABULARY]:
            sentence = f"The model has no token {unknown[0]}."
            fields = [FieldError(param, sentence)] if param else []
            raise Invalid(sentence, reason="engine.token", fields=fields)

    # --- decoding

    async def _run(
        self, model: Bigrams, job: Job, prompts: list[list[int]]
    ) -> AsyncGenerator[Event, None]:
        sequences = []
        for index in range(len(prompts) * job.n):
            ids = prompts[index // job.n]
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            if job.echo:
                told = self._told(model, ids, job) if job.logprobs is not None else ()
                text = bytes(t for t in ids if t != END).decode("utf-8", "replace")
                yield Piece(index, text, tuple(told), computed=0)
            sequences.append(Line(index, list(ids), len(ids), decoder))
        for sequence in sequences:
            if job.max_tokens == 0:
                sequence.ended = True
                yield Ended(sequence.index, "length", 0)
        while alive := [s for s in sequences if not s.ended]:
            await asyncio.sleep(self.step)
            if self.ended:
                raise Unavailable("The engine is stopping.", reason="engine.draining")
            self.steps += 1
            for sequence in alive:
                for event in self._advance(model, job, sequence):
                    yield event

    def _advance(self, model: Bigrams, job: Job, sequence: Line) -> list[Event]:
        row = model.rows[sequence.ids[-1]]
        token = _choose(row, job.sampling, sequence)
        sequence.ids.append(token)
        made = len(sequence.ids) - sequence.prompt
        if token != END:
            sequence.held += sequence.decoder.decode(bytes([token]))
            if job.logprobs is not None:
                sequence.waiting.append(_token(row, token, job.logprobs))
        at = min((i for s in job.stop if (i := sequence.held.find(s)) >= 0), default=-1)
        reason = "stop" if token == END or at >= 0 else "length" if made == job.max_tokens else None
        if at >= 0:
            text, sequence.held = sequence.held[:at], ""
        elif reason:
            text, sequence.held = sequence.held, ""
        else:
            keep = _may_begin(sequence.held, job.stop)
            text = sequence.held[: len(sequence.held) - keep]
            sequence.held = sequence.held[len(sequence.held) - keep :]
        shown: tuple[Token, ...] = ()
        if text or reason:
            shown, sequence.waiting = tuple(sequence.waiting), []
        events: list[Event] = [Piece(sequence.index, text, shown)]
        if reason:
            sequence.ended = True
            events.append(Ended(sequence.index, reason, made))  # type: ignore[arg-type]
        return events

    def _told(self, model: Bigrams, ids: list[int], job: Job) -> list[Token]:
        first = Token(ids[0], text_of(ids[0]))
        rest = itertools.pairwise(ids)
        return [first] + [_token(model.rows[a], b, job.logprobs or 0) for a, b in rest]

    def _scored(self, model: Bigrams, ids: list[int], top: int) -> list[ScoredToken]:
        scored = [ScoredToken(ids[0], text_of(ids[0]), None, None)]
        for before, token in itertools.pairwise(ids):
            row = model.rows[before]
            rank = sum(figure > row[token] for figure in row)
            told = _token(row, token, top)
            scored.append(ScoredToken(token, told.text, told.logprob, rank, told.top))
        return scored


def _token(row: list[float], token: int, top: int) -> Token:
    best = sorted(range(VOCABULARY), key=lambda t: -row[t])[:top]
    return Token(token, text_of(token), row[token], tuple((t, text_of(t), row[t]) for t in best))


def _may_begin(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of a stop."""
    return max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )


def _choose(row: list[float], sampling: Sampling, sequence: Line) -> int:
    logits = list(row)
    answer = Counter(sequence.ids[sequence.prompt :])
    for token in set(sequence.ids):
        penalty = sampling.repetition_penalty
        logits[token] = logits[token] * penalty if logits[token] < 0 else logits[token] / penalty
    for token, count in answer.items():
        logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * count
    for token, bias in sampling.logit_bias.items():
        logits[token] += bias
    order = sorted(range(VOCABULARY), key=lambda t: (-logits[t], t))
    if sampling.temperature == 0:
        return order[0]
    logits = [logit / sampling.temperature for logit in logits]
    if sampling.top_k:
        order = order[: sampling.top_k]
    weights = [math.exp(logits[t] - logits[order[0]]) for t in order]
    total, reached, kept = sum(weights), 0.0, 0
    while kept < len(order) and (kept == 0 or reached < sampling.top_p * total):
        reached += weights[kept]
        kept += 1
    order, weights = order[:kept], weights[:kept]
    pairs = [
        (t, w) for t, w in zip(order, weights, strict=True) if w >= sampling.min_p * weights[0]
    ]
    if sampling.seed is None:
        source: random.Random = random.SystemRandom()
    else:
        source = random.Random(f"{sampling.seed}:{sequence.index}:{len(sequence.ids)}")
    return source.choices([t for t, _ in pairs], [w for _, w in pairs])[0]
