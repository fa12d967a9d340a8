"""Which sequences are computed in the next step, and where their state is kept. Pure: no torch.

Continuous batching (Orca, Yu et al. 2022): sequences join and leave at every step. A prompt is
computed in chunks that begin at multiples of ``CHUNK``, beside the sequences that are decoding, so
that a long prompt never makes them wait longer than one chunk takes; and because the chunks of a
prompt are always the same, so are its figures, whoever else is in the batch.

Each sequence has a slot: its place in the key-value store. A slot keeps the prompt that was
computed when its sequence has ended, so that one with the same beginning can take it up: whole
chunks of it, and nothing of the answer, whose tokens were computed one by one and so round
otherwise. Memory is given at admission for the whole length a sequence may reach: what runs never
has to be thrown out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Several
from dataclasses import dataclass, field

from stagerelease.kernel.errors import TooMany

CHUNK = 64
"""Prompt tokens of one sequence that one step computes."""


@dataclass(eq=False, slots=True)
class Line:
    """One sequence: its tokens, how many of them are in the store, and where.

    ``follows``: another line of the same prompt whose computed prompt this one takes over.
    """

    tokens: list[int]
    prompt: int  # how many of the tokens were given
    most: int  # how many there may be in the end
    salt: str = ""
    follows: Line | None = None
    computed: int = 0
    slot: int = -1
    reused: int = 0
    ended: bool = False
    fresh: bool = False  # must compute its whole prompt: every position's figures are asked for

    @property
    def room(self) -> int:
        """Return how many tokens of memory the line may come to need."""
        return -(-self.most // CHUNK) * CHUNK


@dataclass(frozen=True, slots=True)
class Part:
    """A run of one line's tokens that a step computes: ``count`` of them from ``start``."""

    line: Line
    start: int
    count: int

    @property
    def completes(self) -> bool:
        """Tell whether the line's next token can be chosen after this."""
        return self.start + self.count == len(self.line.tokens)


@dataclass(slots=True)
class Slot:
    """A place in the store: the prompt an ended line left there, and how much memory is written.

    ``dirty`` counts tokens of memory that the place holds until they are given up; it is raised
    before they are written, since a line may be called off while it is computed.
    """

    tokens: list[int] = field(default_factory=list)
    salt: str = ""
    line: Line | None = None
    dirty: int = 0
    used_at: int = 0

    @property
    def weight(self) -> int:
        """Return how many tokens of memory must be counted for this place."""
        return self.dirty if self.line is None else max(self.dirty, self.line.room)


@dataclass(frozen=True, slots=True)
class Take:
    """A line has got its slot; ``count`` tokens are to be copied there from slot ``source``."""

    line: Line
    source: int
    count: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next, in this order: give up the memory of ``drops``, copy, compute ``parts``."""

    drops: tuple[int, ...]
    takes: tuple[Take, ...]
    parts: tuple[Part, ...]


class Scheduler:
    """Decides each step of one model. Used by one thread.

    ``slots`` sequences at once at most; ``room`` tokens of memory for all of them and for what
    ended ones left; ``queue`` more may wait; ``prefill`` prompt tokens in one step at most.
    """

    def __init__(self, *, slots: int, room: int, queue: int, prefill: int = 4 * CHUNK) -> None:
        self.slots = [Slot() for _ in range(slots)]
        self.room = room
        self.queue = queue
        self.prefill = prefill
        self.waiting: deque[Line] = deque()
        self.running: list[Line] = []
        self._clock = 0

    @property
    def busy(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.waiting or self.running)

    def add(self, lines: Several[Line]) -> None:
        """Let ``lines`` wait for their turn, all or none.

        Raises:
            TooMany: the queue is full.
        """
        if len(self.waiting) + len(lines) > self.queue + len(self.slots) - len(self.running):
            raise TooMany(
                f"{len(self.waiting)} sequences are waiting already.",
                retry_after=2,
                reason="engine.full",
            )
        self.waiting.extend(lines)

    def drop(self, line: Line, *, keep: bool = True) -> None:
        """End a line, wherever it is; its computed prompt stays until the room is needed.

        ``keep`` is false when what was computed cannot be trusted.
        """
        if line.ended:
            if not keep and line.slot >= 0 and self.slots[line.slot].line is None:
                self.slots[line.slot].tokens = []
            return
        line.ended = True
        if line.slot < 0:
            if line in self.waiting:
                self.waiting.remove(line)
            return
        slot = self.slots[line.slot]
        slot.line = None
        slot.tokens = line.tokens[: min(line.computed, line.prompt)] if keep else []
        slot.salt = line.salt
        slot.used_at = self._tick()
        self.running.remove(line)

    def plan(self) -> Step:
        """Return the next step; its parts are empty only when nothing can go on."""
        drops, takes = self._admit()
        decoding = [
            Part(line, line.computed, 1)
            for line in self.running
            if len(line.tokens) - line.computed == 1 and line.computed >= line.prompt
        ]
        parts = sorted(decoding, key=lambda part: part.line.slot)
        left = CHUNK if decoding else self.prefill
        for line in self.running:
            if line.computed >= line.prompt or self._waits_for_lead(line):
                continue
            start = line.computed
            count = min(CHUNK - start % CHUNK, line.prompt - start)
            if count > left:
                break
            parts.append(Part(line, start, count))
            left -= count
        for part in parts:
            self._will_write(part.line, part.start + part.count)
        return Step(drops, takes, tuple(parts))

    def done(self, part: Part) -> None:
        """Note that ``part`` is in the store."""
        part.line.computed = part.start + part.count

    def take_over(self, lead: Line) -> list[Line]:
        """Return the running lines that take over the prompt that ``lead`` has just computed.

        It counts as theirs from now on: the caller copies it to their slots.
        """
        lines = [line for line in self.running if line.follows is lead]
        for line in lines:
            line.follows, line.computed, line.reused = None, lead.prompt, lead.prompt
            self._will_write(line, lead.prompt)
        return lines

    @staticmethod
    def _waits_for_lead(line: Line) -> bool:
        lead = line.follows
        if lead is None:
            return False
        if lead.ended or lead.computed >= lead.prompt:
            line.follows = None  # its lead was called off: it computes for itself
            return False
        return True

    def _admit(self) -> tuple[tuple[int, ...], tuple[Take, ...]]:
        drops: list[int] = []
        takes: list[Take] = []
        while self.waiting:
            line = self.waiting[0]
            # What is copied from in this step stays as it is until then.
            read = {take.source for take in takes}
            free = [i for i, slot in enumerate(self.slots) if slot.line is None and i not in read]
            if not free:
                break
            lead = line.follows
            if lead is not None and (lead.ended or lead.computed >= lead.prompt):
                line.follows = None  # too late to take over its prompt as a whole
            source, count = (-1, 0) if line.fresh or line.follows else self._best_prefix(line)
            near = source in free and self._off(source) == 0
            place = source if near else self._emptiest(free)
            given_up = self._make_room(line, place, read | {source})
            if given_up is None:
                break
            drops += given_up
            self._occupy(line, place, count)  # first, so that it is in one list or the other
            self.waiting.popleft()
            if count and source != place:
                takes.append(Take(line, source, count))
        return tuple(drops), tuple(takes)

    def _occupy(self, line: Line, place: int, count: int) -> None:
        slot = self.slots[place]
        slot.line, slot.tokens, slot.used_at = line, [], self._tick()
        line.slot, line.computed, line.reused = place, count, count
        self._will_write(line, count)
        self.running.append(line)

    def _will_write(self, line: Line, count: int) -> None:
        slot = self.slots[line.slot]
        slot.dirty = max(slot.dirty, -(-count // CHUNK) * CHUNK)

    def _best_prefix(self, line: Line) -> tuple[int, int]:
        """Return the slot that holds the longest beginning of a prompt, in whole chunks."""
        best, length = -1, 0
        for i, slot in enumerate(self.slots):
            salt = slot.salt if slot.line is None else slot.line.salt
            if salt != line.salt:
                continue
            held = slot.tokens
            if slot.line is not None:
                held = slot.line.tokens[: min(slot.line.computed, slot.line.prompt)]
            same = _common(held, line.tokens, line.prompt - 1) // CHUNK * CHUNK
            if same > length or (same == length and same and slot.line is None):
                best, length = i, same
        return best, length

    def _off(self, place: int) -> int:
        """Return how far a slot is from those in use: all from the first of them to the last are
        looked up together, so each in between costs as much as one in use.
        """
        used = [line.slot for line in self.running]
        return max(min(used) - place, place - max(used), 0) if used else 0

    def _emptiest(self, free: Several[int]) -> int:
        """Return the free slot to write over: near those in use, then one that holds nothing, else
        the oldest.
        """
        slots = self.slots
        return min(free, key=lambda i: (self._off(i), bool(slots[i].tokens), slots[i].used_at, i))

    def _make_room(self, line: Line, place: int, read: set[int]) -> list[int] | None:
        """Return which places to give up so that ``line`` fits, or None while it cannot. Those that
        are ``read``, beginnings to be used again, stay.
        """
        held = sum(slot.weight for slot in self.slots) - self.slots[place].dirty
        given_up = []
        own = self.slots[place].dirty
        if own > line.room and place not in read:
            given_up, own = [place], 0
        left = held + max(own, line.room) - self.room
        left_over = [i for i, s in enumerate(self.slots) if s.line is None and s.dirty]
        others = [i for i in left_over if i != place and i not in read]
        for i in sorted(others, key=lambda i: self.slots[i].used_at):
            if left <= 0:
                break
            left -= self.slots[i].dirty
            given_up.append(i)
        if left > 0:
            return None
        for i in given_up:
            self.slots[i].tokens, self.slots[i].dirty = [], 0
        return given_up

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _common(a: Several[int], b: Several[int], most: int) -> int:
    n = min(len(a), len(b), most)
    for i in range(n):
        if a[i] != b[i]:
            return i
    return max(n, 0)
