"""One loaded checkpoint: its model, its scheduler, and the step that joins them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor

from stagerelease.engine.answering import Answer
from stagerelease.engine.batching import Line, Part, Scheduler
from stagerelease.engine.gpt2 import Gpt2
from stagerelease.engine.sampling import NoNumberError, choose
from stagerelease.engine.vocabulary import Vocabulary
from stagerelease.kernel.errors import DomainError, Unavailable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Rows of a step whose logits are needed: of which part, and where they begin and end."""

    part: Part
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Computed:
    """What a step has yielded; ``spoilt`` parts hold something that is no number."""

    wanted: list[_Wanted]
    logits: Tensor
    spoilt: list[Part]


class Runner:
    """Computes one checkpoint, step by step, in the engine's thread.

    ``lock`` guards scheduler and answers, which other threads add to and call off; it is never
    held while the model computes.
    """

    def __init__(self, model: Gpt2, vocabulary: Vocabulary, scheduler: Scheduler) -> None:
        self.model, self.vocabulary, self.scheduler = model, vocabulary, scheduler
        self.answers: dict[Line, Answer] = {}
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.used_at = 0.0  # when a sequence ended last

    def submit(self, answers: Sequence[Answer]) -> None:
        """Let sequences join, all or none.

        Raises:
            TooMany: too many wait already.
        """
        with self.lock:
            self.scheduler.add([answer.line for answer in answers])
            self.answers |= {answer.line: answer for answer in answers}

    def call_off(self, answers: Sequence[Answer]) -> None:
        """Stop sequences: none of them is part of the next step."""
        with self.lock:
            for answer in answers:
                if self.answers.pop(answer.line, None) is not None:
                    self.scheduler.drop(answer.line)
                    self.counts["sequences_called_off"] += 1

    @property
    def idle(self) -> bool:
        """Tell surely whether no sequence is under way, whatever the engine's thread does now."""
        with self.lock:
            return not self.scheduler.busy

    @property
    def busy(self) -> bool:
        """Tell whether a step would do anything."""
        return self.scheduler.busy

    def step(self) -> None:
        """Compute one step and hand over what it yields. A failure ends its own sequences only."""
        began = time.perf_counter()
        with self.lock:
            step = self.scheduler.plan()
        try:
            for slot in step.drops:
                self.model.store.give_up(slot)
            for take in step.takes:
                self.model.store.copy(take.source, take.line.slot, take.count)
            done = self._compute(step.parts) if step.parts else None
        except Exception:  # memory, a kernel, an index: whatever it is, it is of these lines
            log.exception("a step could not be computed")
            lines = [part.line for part in step.parts] + [take.line for take in step.takes]
            self.fail(lines, _failed("The model could not compute this."), keep=False)
            return
        if done is None:
            time.sleep(0.001)
            return
        with self.lock:
            self._settle(step.parts, done)
        self.counts["steps"] += 1
        self.counts["rows"] += sum(part.count for part in step.parts)
        self.counts["microseconds"] += int((time.perf_counter() - began) * 1e6)

    def fail(self, lines: Sequence[Line], error: DomainError, *, keep: bool = True) -> None:
        """End sequences with an error; ``keep`` is false when their keys cannot be trusted."""
        with self.lock:
            for line in lines:
                answer = self.answers.pop(line, None)
                if answer is not None:
                    answer.stream.fail(error)
                self.scheduler.drop(line, keep=keep)

    def _compute(self, parts: Sequence[Part]) -> _Computed:
        hidden = self.model.hidden(parts)
        finite = torch.isfinite(hidden).all(-1).tolist()
        spoilt: list[Part] = []
        wanted: list[_Wanted] = []
        rows: list[int] = []
        first = 0
        for part in parts:
            answer = self.answers.get(part.line)
            last = first + part.count
            if not all(finite[first:last]):
                spoilt.append(part)
            elif answer is not None:
                every = answer.figures is not None and part.start < part.line.prompt
                if every or part.completes:
                    begin = first if every else last - 1
                    wanted.append(_Wanted(part, len(rows), len(rows) + last - begin))
                    rows += range(begin, last)
            first = last
        if not rows:
            return _Computed(wanted, hidden[:0], spoilt)
        logits = self.model.logits(hidden[torch.tensor(rows, device=hidden.device)])
        return _Computed(wanted, logits, spoilt)

    def _settle(self, parts: Sequence[Part], done: _Computed) -> None:
        """Note what is computed, choose the next tokens, and send. Under the lock."""
        ready: list[tuple[Answer, Tensor]] = []
        logits = done.logits
        for part in done.spoilt:
            self._spoil(part.line)
        for part in parts:
            self.scheduler.done(part)
        for want in done.wanted:
            line = want.part.line
            answer = self.answers.get(line)
            if answer is None:
                continue  # called off meanwhile
            row = logits[want.last - 1]
            if want.part.start >= line.prompt:
                ready.append((answer, row))
                continue
            if answer.figures is not None and not answer.figures.add(
                logits[want.first : want.last]
            ):
                self._give_up(answer)
                continue
            if want.part.completes:
                ready += [(one, row) for one in self._begin(answer)]
        self._choose(ready)
        for answer in {id(a.stream): a for a in self.answers.values()}.values():
            answer.stream.flush()

    def _spoil(self, line: Line) -> None:
        """End a sequence that yields no numbers, and wipe what it kept: who has the place next is
        masked from it by a factor of nought, and nought times no number is no number.
        """
        slot, answer = line.slot, self.answers.get(line)
        self.scheduler.drop(line, keep=False)
        self.model.store.wipe(slot, self.scheduler.slots[slot].dirty)
        if answer is not None:
            self._give_up(answer)

    def _begin(self, answer: Answer) -> list[Answer]:
        """Note that a prompt is computed, for its own sequence and for those that follow it."""
        lead = answer.line
        self.counts["prompt_tokens"] += lead.prompt - lead.reused
        self.counts["reused_tokens"] += lead.reused
        begun = [answer]
        for line in self.scheduler.take_over(lead):
            self.model.store.copy(lead.slot, line.slot, lead.prompt)
            self.counts["reused_tokens"] += lead.prompt
            begun.append(self.answers[line])
        going = []
        for one in begun:
            one.begin()
            if one.scores is not None and one.figures is not None:
                done, scores = one.scores, tuple(one.figures.tokens)
                one.stream.loop.call_soon_threadsafe(_resolve, done, scores)
            if one.job.max_tokens == 0:
                one.end("length")
                self._finish(one)
            else:
                going.append(one)
        return going

    def _choose(self, ready: Sequence[tuple[Answer, Tensor]]) -> None:
        if not ready:
            return
        choosers = [answer.chooser for answer, _ in ready]
        positions = [len(answer.line.tokens) for answer, _ in ready]
        tokens = choose([row for _, row in ready], choosers, positions)
        for (answer, row), token in zip(ready, tokens, strict=True):
            self.counts["completion_tokens"] += 1
            try:
                goes_on = token >= 0 and answer.take(token, row)
            except NoNumberError:
                token = -1
            if token < 0:
                self._give_up(answer)
            elif not goes_on:
                self._finish(answer)

    def _give_up(self, answer: Answer) -> None:
        """End a sequence of which something is no number."""
        answer.stream.fail(_failed("The model yields no numbers."))
        self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        answer.stream.flush()
        self.answers.pop(answer.line, None)
        self.scheduler.drop(answer.line)
        self.counts["sequences_ended"] += 1
        self.used_at = time.monotonic()


def _failed(sentence: str) -> Unavailable:
    return Unavailable(sentence, reason="engine.failed")


def _resolve(future: object, value: object) -> None:
    """Give a future its result unless whoever waited has gone."""
    if not future.done():  # type: ignore[attr-defined]
        future.set_result(value)  # type: ignore[attr-defined]
