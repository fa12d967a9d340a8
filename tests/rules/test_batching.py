"""The scheduler of the engine, driven through anything: joins, leaves, call-offs at any moment.

The machine keeps its own picture of the store (which token was written where, by whom and how) and
computes every step in it; whatever the scheduler hands out must lie there when it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stagerelease.engine.batching import CHUNK, Line, Scheduler, Step
from stagerelease.kernel.errors import TooMany

LONGEST = 4 * CHUNK


@dataclass(frozen=True)
class Kept:
    """One token in the store: what it is, for whom it may be used again, and how it was made."""

    token: int
    salt: str
    whole_chunk: bool


@dataclass
class Told:
    """What the machine knows of a line beside what the line says."""

    line: Line
    answer: int  # tokens to come before it ends by itself
    led_by: Line | None
    computed_alone: list[tuple[int, int]] = field(default_factory=list)
    took_over: bool = False
    admitted_at: int | None = None


def prompt_of(family: int, length: int, turn: int) -> list[int]:
    """Tokens of one of a few families, alike up to ``turn``."""
    return [family * 10_000 + i + (5_000 if i >= turn else 0) for i in range(length)]


class Batching(RuleBasedStateMachine):
    @initialize(
        slots=st.integers(1, 6),
        rooms=st.integers(1, 6),
        queue=st.integers(0, 6),
        prefill=st.integers(1, 4),
    )
    def begin(self, slots: int, rooms: int, queue: int, prefill: int) -> None:
        self.scheduler = Scheduler(
            slots=slots,
            room=max(rooms * CHUNK, LONGEST),
            queue=queue,
            prefill=prefill * CHUNK,
        )
        self.store: list[list[Kept]] = [[] for _ in range(slots)]
        self.told: dict[int, Told] = {}
        self.order: list[Line] = []  # as they were added, less those called off
        self.admitted: list[Line] = []

    # What callers do

    @rule(
        family=st.integers(0, 1),
        length=st.integers(1, LONGEST - 1),
        turn=st.integers(0, LONGEST),
        more=st.integers(1, CHUNK),
        n=st.integers(1, 3),
        salt=st.sampled_from(["", "other"]),
        fresh=st.booleans(),
    )
    def add(
        self, family: int, length: int, turn: int, more: int, n: int, salt: str, fresh: bool
    ) -> None:
        self._add(prompt_of(family, length, turn), more, n, salt, fresh)

    @precondition(lambda self: self.told)
    @rule(which=st.integers(0, 100), more=st.integers(1, CHUNK))
    def go_on(self, which: int, more: int) -> None:
        """Ask again with all that was said before, the answer too."""
        before = list(self.told.values())[which % len(self.told)].line
        if len(before.tokens) < LONGEST - 1:
            self._add([*before.tokens, 1], more, 1, before.salt, fresh=False)

    def _add(self, tokens: list[int], more: int, n: int, salt: str, fresh: bool) -> None:
        length = len(tokens)
        most = min(LONGEST, length + more)
        lines: list[Line] = []
        for _ in range(n):
            lead = lines[0] if lines else None
            lines.append(Line(list(tokens), length, most, salt, lead, fresh=fresh))
        scheduler = self.scheduler
        free = len(scheduler.slots) - len(scheduler.running)
        fits = len(scheduler.waiting) + n <= scheduler.queue + free
        if not fits:
            with pytest.raises(TooMany, match="waiting already") as refusal:
                scheduler.add(lines)
            assert refusal.value.reason == "engine.full"
            assert not any(line in scheduler.waiting for line in lines)
            return
        scheduler.add(lines)
        self.order += lines
        for line in lines:
            self.told[id(line)] = Told(line, most - length, line.follows)

    @precondition(lambda self: self.order)
    @rule(which=st.integers(0, 100))
    def call_off(self, which: int) -> None:
        self._end(self.order[which % len(self.order)])

    @rule(called_off=st.lists(st.integers(0, 100), max_size=2), fails=st.integers(0, 20))
    def step(self, called_off: list[int], fails: int) -> None:
        """Compute one step; some lines are called off while it is computed, and it may fail."""
        step = self._planned()
        if fails == 0 and step.parts:
            for part in step.parts:
                self.store[part.line.slot] = self.store[part.line.slot][: part.start]
            for line in {part.line for part in step.parts}:
                self._end(line, keep=False)
            return
        for part in step.parts:
            self._compute(part.line, part.start, part.count)
        for which in called_off:
            if self.order:
                self._end(self.order[which % len(self.order)])
        self._settle(step)

    # How the engine's thread goes about it

    def _planned(self) -> Step:
        running = list(self.scheduler.running)
        step = self.scheduler.plan()
        joined = self.scheduler.running[len(running) :]
        assert self.scheduler.running[: len(running)] == running
        self.admitted += joined
        for slot in step.drops:
            self.store[slot] = []
        for line in joined:
            self._joined(line)
        for take in step.takes:
            self.store[take.line.slot] = self.store[take.source][: take.count]
            assert take.count == take.line.computed == take.line.reused
        for line in joined:
            held = self.store[line.slot][: line.computed]
            assert [kept.token for kept in held] == line.tokens[: line.computed]
            assert all(kept.salt == line.salt and kept.whole_chunk for kept in held)
        self._check_parts(step)
        return step

    def _joined(self, line: Line) -> None:
        assert line.computed % CHUNK == 0
        assert line.computed < line.prompt  # something is left from which to choose
        if line.fresh or line.follows is not None:
            assert line.computed == 0

    def _check_parts(self, step: Step) -> None:
        lines = [part.line for part in step.parts]
        assert len(set(map(id, lines))) == len(lines)
        assert all(not line.ended and line in self.scheduler.running for line in lines)
        decoding = [part for part in step.parts if part.start >= part.line.prompt]
        ready = [line for line in self.scheduler.running if line.computed >= line.prompt]
        # Nobody who decodes is passed over, and all come first.
        assert {id(part.line) for part in decoding} == set(map(id, ready))
        assert list(step.parts[: len(decoding)]) == decoding
        given = sum(part.count for part in step.parts[len(decoding) :])
        assert given <= (CHUNK if decoding else self.scheduler.prefill)
        assert bool(step.parts) == bool(self.scheduler.running)

    def _compute(self, line: Line, start: int, count: int) -> None:
        assert start == line.computed
        here = self.store[line.slot]
        assert [kept.token for kept in here[:start]] == line.tokens[:start]
        if start < line.prompt:
            assert start % CHUNK == 0
            assert count == min(CHUNK, line.prompt - start)
            self.told[id(line)].computed_alone.append((start, count))
        else:
            assert count == 1
        whole = start < line.prompt and count == CHUNK
        new = [Kept(token, line.salt, whole) for token in line.tokens[start : start + count]]
        self.store[line.slot] = here[:start] + new + here[start + count :]

    def _settle(self, step: Step) -> None:
        for part in step.parts:
            self.scheduler.done(part)
        for part in step.parts:
            line = part.line
            if line.ended or not part.completes:
                continue
            going = [line]
            if part.start < line.prompt:
                for other in self.scheduler.take_over(line):
                    assert self.told[id(other)].led_by is line
                    self.store[other.slot] = list(self.store[line.slot][: line.prompt])
                    self.told[id(other)].took_over = True
                    going.append(other)
            for one in going:
                self._choose(one)

    def _choose(self, line: Line) -> None:
        assert line.computed == len(line.tokens)
        told = self.told[id(line)]
        told.answer -= 1
        if told.answer <= 0:
            self._check_prompt(told)
            self._end(line)
        else:
            line.tokens.append(-line.computed)

    def _check_prompt(self, told: Told) -> None:
        """Every token of the prompt was computed once, or was in store."""
        line = told.line
        parts = told.computed_alone
        if told.took_over:
            assert parts == []
            assert line.reused == line.prompt
            return
        begins = [line.reused, *(start + count for start, count in parts)]
        assert begins == [*(start for start, _ in parts), line.prompt]

    def _end(self, line: Line, *, keep: bool = True) -> None:
        self.scheduler.drop(line, keep=keep)
        self.scheduler.drop(line)  # twice is once
        self.order = [other for other in self.order if other is not line]
        self.admitted = [other for other in self.admitted if other is not line]

    # What always holds

    @invariant()
    def a_slot_has_one_line(self) -> None:
        places = [line.slot for line in self.scheduler.running]
        assert len(set(places)) == len(places)
        held = {i for i, slot in enumerate(self.scheduler.slots) if slot.line is not None}
        assert held == set(places)
        for line in self.scheduler.running:
            assert self.scheduler.slots[line.slot].line is line

    @invariant()
    def memory_is_counted_and_enough(self) -> None:
        assert sum(slot.weight for slot in self.scheduler.slots) <= self.scheduler.room
        for slot, kept in zip(self.scheduler.slots, self.store, strict=True):
            assert len(kept) <= slot.dirty <= slot.weight
        for line in self.scheduler.running:
            assert len(line.tokens) <= line.most <= self.scheduler.slots[line.slot].weight

    @invariant()
    def what_a_place_offers_lies_there(self) -> None:
        for slot, kept in zip(self.scheduler.slots, self.store, strict=True):
            assert [k.token for k in kept[: len(slot.tokens)]] == slot.tokens

    @invariant()
    def first_come_first_served(self) -> None:
        assert self.admitted == self.order[: len(self.admitted)]
        assert list(self.scheduler.waiting) == self.order[len(self.admitted) :]

    @invariant()
    def the_queue_is_bounded(self) -> None:
        scheduler = self.scheduler
        assert len(scheduler.waiting) <= scheduler.queue + len(scheduler.slots)

    def teardown(self) -> None:
        """Nothing starves: what is left ends within the steps it needs if it has each by itself."""
        if not hasattr(self, "scheduler"):
            return
        steps = sum(
            -(-told.line.prompt // CHUNK) + told.answer
            for told in self.told.values()
            if not told.line.ended
        )
        for _ in range(steps):
            if self.scheduler.busy:
                self.step([], 1)
        assert not self.scheduler.busy
        assert self.order == []
        assert all(slot.line is None for slot in self.scheduler.slots)


# The invariants ask for a scheduler: hypothesis checks them after ``begin``.
def test_scheduler_machine() -> None:
    run_state_machine_as_test(
        Batching,
        settings=settings(
            max_examples=max(settings().max_examples // 2, 30), stateful_step_count=40
        ),
    )


# --- what the machine cannot show by itself -------------------------------------------------------


def steps(scheduler: Scheduler, count: int = 1) -> list[Step]:
    """Compute so many steps, choosing a token wherever one is due."""
    made = []
    for _ in range(count):
        step = scheduler.plan()
        made.append(step)
        for part in step.parts:
            scheduler.done(part)
            if part.completes:
                for line in [part.line, *scheduler.take_over(part.line)]:
                    line.tokens.append(7)
    return made


def line(length: int, more: int = 8, first: int = 0, **given: object) -> Line:
    return Line([first + i for i in range(length)], length, length + more, **given)  # type: ignore[arg-type]


def test_a_long_prompt_never_keeps_those_who_decode_waiting() -> None:
    scheduler = Scheduler(slots=3, room=10_000, queue=10)
    short, long = line(5, 50), line(1000, first=50)
    scheduler.add([short])
    steps(scheduler)
    scheduler.add([long, line(900, first=5000)])
    for step in steps(scheduler, 16):
        assert step.parts[0].line is short
        assert sum(part.count for part in step.parts[1:]) <= CHUNK
    assert long.computed == 1000


def test_a_prompt_alone_gets_several_chunks_of_others_beside_it() -> None:
    scheduler = Scheduler(slots=4, room=10_000, queue=10, prefill=2 * CHUNK)
    scheduler.add([line(CHUNK, first=i * 1000) for i in range(3)])
    (step,) = steps(scheduler)
    assert [part.count for part in step.parts] == [CHUNK, CHUNK]


def test_a_common_beginning_is_taken_up_in_place_from_an_ended_line() -> None:
    scheduler = Scheduler(slots=2, room=10_000, queue=10)
    first = line(3 * CHUNK + 5)
    scheduler.add([first])
    steps(scheduler, 5)
    scheduler.drop(first)
    again = line(4 * CHUNK)
    scheduler.add([again])
    (step,) = steps(scheduler)
    assert (again.slot, again.reused) == (first.slot, 3 * CHUNK)
    assert step.takes == ()
    assert step.parts[0].start == 3 * CHUNK


def test_a_common_beginning_is_copied_from_a_line_that_runs() -> None:
    scheduler = Scheduler(slots=2, room=10_000, queue=10)
    first = line(2 * CHUNK + 5)
    scheduler.add([first])
    steps(scheduler, 2)
    again = line(2 * CHUNK + 9)
    scheduler.add([again])
    (step,) = steps(scheduler)
    (take,) = step.takes
    assert (take.line, take.source, take.count) == (again, first.slot, 2 * CHUNK)


def test_a_beginning_far_from_those_in_use_is_copied_and_lasts_until_it_is() -> None:
    """All places between are looked up together, so one takes the nearest."""
    scheduler = Scheduler(slots=5, room=9 * CHUNK, queue=10)
    runs, between, before = line(5, 50), line(5, 50, first=500), line(2 * CHUNK + 5)
    scheduler.add([runs, between, before])
    steps(scheduler, 3)
    assert [one.slot for one in (runs, between, before)] == [0, 1, 2]
    scheduler.drop(before)
    scheduler.drop(between, keep=False)
    again, small = line(2 * CHUNK + 9), line(5, first=900)
    scheduler.add([again, small])
    (step,) = steps(scheduler)
    (take,) = step.takes
    assert (take.line, take.source, again.slot, again.reused) == (again, 2, 1, 2 * CHUNK)
    assert 2 not in step.drops  # nor is the second put there, whose memory would be given up first
    assert small.slot == 3


def test_a_whole_prompt_in_store_still_computes_its_last_chunk() -> None:
    scheduler = Scheduler(slots=1, room=10_000, queue=10)
    for expected in (0, CHUNK):
        one = line(2 * CHUNK)
        scheduler.add([one])
        steps(scheduler, 3)
        assert one.reused == expected
        scheduler.drop(one)


@pytest.mark.parametrize("ended", [True, False])
def test_no_answer_is_used_again_since_its_tokens_were_computed_one_by_one(ended: bool) -> None:
    scheduler = Scheduler(slots=2, room=10_000, queue=10)
    first = line(CHUNK + 10, 3 * CHUNK)
    scheduler.add([first])
    steps(scheduler, 2 * CHUNK)
    assert first.computed > 2 * CHUNK
    if ended:
        scheduler.drop(first)
    more = Line([*first.tokens, 1, 2, 3], len(first.tokens) + 3, 400)
    scheduler.add([more])
    steps(scheduler)
    assert more.reused == CHUNK


@pytest.mark.parametrize("salt", ["", "b"])
def test_another_salt_finds_nothing_in_store(salt: str) -> None:
    scheduler = Scheduler(slots=2, room=10_000, queue=10)
    first = line(2 * CHUNK, salt="a")
    scheduler.add([first])
    steps(scheduler, 2)
    for _ in ("while it runs", "when it has ended"):
        other = line(2 * CHUNK, salt=salt)
        scheduler.add([other])
        steps(scheduler)
        assert other.reused == 0
        scheduler.drop(other, keep=False)
        scheduler.drop(first)


@pytest.mark.parametrize("when", range(7))
def test_followers_go_on_by_themselves_when_their_lead_is_called_off(when: int) -> None:
    """At any moment: before it has a slot, within its prompt, just after, while all decode."""
    scheduler = Scheduler(slots=3, room=10_000, queue=10)
    lead = line(3 * CHUNK, 20)
    others = [line(3 * CHUNK, 20, follows=lead) for _ in range(3)]  # one of them must wait
    scheduler.add([lead, *others])
    steps(scheduler, when)
    scheduler.drop(lead)
    done = 0
    for _ in range(60):
        steps(scheduler)
        for one in others:
            if not one.ended and len(one.tokens) == one.most:
                scheduler.drop(one)
                done += 1
    assert done == 3
    assert not scheduler.busy


def test_what_cannot_be_trusted_is_not_offered_again() -> None:
    scheduler = Scheduler(slots=1, room=10_000, queue=10)
    first = line(3 * CHUNK)
    scheduler.add([first])
    steps(scheduler, 2)
    scheduler.drop(first)
    scheduler.drop(first, keep=False)  # its step failed after it was called off
    again = line(3 * CHUNK)
    scheduler.add([again])
    steps(scheduler)
    assert again.reused == 0


def test_memory_written_while_a_line_is_called_off_is_counted() -> None:
    scheduler = Scheduler(slots=2, room=4 * CHUNK, queue=10)
    first = line(CHUNK)
    scheduler.add([first])
    (part,) = scheduler.plan().parts
    scheduler.drop(first)  # the thread is writing its chunk now
    scheduler.done(part)
    assert scheduler.slots[first.slot].dirty == CHUNK
    big = line(3 * CHUNK + 10, 10, first=500)
    scheduler.add([big])
    step = scheduler.plan()
    assert step.drops == (first.slot,) or big.slot == first.slot
