"""One sequence under way: what it has yielded, what may be sent of it, and to whom."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from stagerelease.engine.batching import Line
from stagerelease.engine.ports import Ended, Event, Job, Piece, ScoredToken, Token
from stagerelease.engine.sampling import Chooser, NoNumberError, figures
from stagerelease.engine.spelling import Spelling
from stagerelease.engine.vocabulary import Vocabulary
from stagerelease.kernel.errors import DomainError


@dataclass(eq=False, slots=True)
class Stream:
    """Carries events from the engine's thread to the task that asked. An error ends it."""

    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[list[Event] | DomainError] = field(default_factory=asyncio.Queue)
    pending: list[Event] = field(default_factory=list)

    def flush(self) -> None:
        """Hand over what one step has yielded."""
        if self.pending:
            events, self.pending = self.pending, []
            self._put(events)

    def fail(self, error: DomainError) -> None:
        """Tell that nothing more will come."""
        self._put(error)

    def _put(self, item: list[Event] | DomainError) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.queue.put_nowait, item)


class Figures:
    """What a prompt's own tokens are worth, filled chunk by chunk."""

    def __init__(self, vocabulary: Vocabulary, ids: list[int], top: int, *, rank: bool) -> None:
        self.vocabulary, self.ids, self.top, self.rank = vocabulary, ids, top, rank
        self.tokens = [ScoredToken(ids[0], vocabulary.spell(ids[0]), None, None)]
        self.spoilt = False

    def add(self, rows: Tensor) -> bool:
        """Take the logits after the next tokens of the prompt, one row a token; return whether all
        so far are numbers.
        """
        try:
            self._add(rows)
        except NoNumberError:
            self.spoilt = True
        return not self.spoilt

    def _add(self, rows: Tensor) -> None:
        for row in rows:
            at = len(self.tokens)
            if at == len(self.ids):
                return
            own, place, likely = figures(row, self.ids[at], top=self.top, rank=self.rank)
            spell = self.vocabulary.spell
            self.tokens.append(
                ScoredToken(
                    self.ids[at],
                    spell(self.ids[at]),
                    own,
                    place,
                    tuple((i, spell(i), value) for i, value in likely),
                )
            )


class Answer:
    """One sequence of a job. ``figures`` is set when those of the prompt are asked for."""

    def __init__(
        self,
        job: Job,
        line: Line,
        *,
        index: int,
        vocabulary: Vocabulary,
        ends: frozenset[int],
        stream: Stream,
        figures: Figures | None = None,
        scores: asyncio.Future[tuple[ScoredToken, ...]] | None = None,
    ) -> None:
        self.job, self.line, self.index, self.stream = job, line, index, stream
        self.vocabulary, self.ends, self.figures, self.scores = vocabulary, ends, figures, scores
        self.chooser = Chooser(job.sampling, index=index, prompt=line.tokens)
        self.spelling = Spelling(tuple(job.stop))
        self.count = 0

    def begin(self) -> None:
        """Note that the prompt is computed: echo it when that was asked."""
        if not self.job.echo:
            return
        text = self.job.prompts[self.index // self.job.n]
        if not isinstance(text, str):
            text = self.spelling.echo(b"".join(map(self.vocabulary.bytes_of, text)))
        tokens: tuple[Token, ...] = ()
        if self.figures is not None:
            tokens = tuple(Token(t.id, t.text, t.logprob, t.top) for t in self.figures.tokens)
        self.stream.pending.append(Piece(self.index, text, tokens, computed=0))

    def take(self, token: int, row: Tensor) -> bool:
        """Add a chosen token; return whether the sequence goes on. ``row``: its raw logits."""
        self.count += 1
        self.chooser.answer[token] += 1
        if token in self.ends:
            self._send_rest()
            self.end("stop")
            return False
        shown = None
        if self.job.logprobs is not None:
            own, _, likely = figures(row, token, top=self.job.logprobs)
            spell = self.vocabulary.spell
            top = tuple((i, spell(i), value) for i, value in likely)
            shown = Token(token, spell(token), own, top)
        released = self.spelling.add(self.vocabulary.bytes_of(token), shown)
        self.stream.pending.append(Piece(self.index, released.text, released.tokens))
        if released.stopped:
            self.end("stop")
            return False
        self.line.tokens.append(token)
        if self.count >= self.job.max_tokens:
            self._send_rest()
            self.end("length")
            return False
        return True

    def end(self, reason: Literal["stop", "length"]) -> None:
        """Tell that the sequence is complete."""
        reused = 0 if self.index % self.job.n else self.line.reused
        self.stream.pending.append(Ended(self.index, reason, self.count, reused))

    def _send_rest(self) -> None:
        """Send what was held back; the sequence's end tells how many tokens there were."""
        rest = self.spelling.end()
        if rest.text or rest.tokens:
            self.stream.pending.append(Piece(self.index, rest.text, rest.tokens, computed=0))
