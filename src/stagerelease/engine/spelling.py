"""From token ids to text that can be sent: whole characters only, and nothing of a stop text. Pure.

Byte-level tokens are bytes, and a character may be spread over several of them; what is held back
is never more than an unfinished character or what may become a stop text.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field

from stagerelease.engine.ports import Token


@dataclass(frozen=True, slots=True)
class Released:
    """What may be sent now, and whether a stop text was met (then nothing more will be)."""

    text: str
    tokens: tuple[Token, ...]
    stopped: bool


@dataclass(slots=True)
class Spelling:
    """The text of one answer as it comes.

    ``stops`` end it and are not part of it: the one that is complete first, however the text came
    in pieces. Bytes that are no UTF-8 become U+FFFD; an unfinished character at the very end is
    left out.
    """

    stops: Sequence[str] = ()
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _held: str = ""
    _sent: int = 0  # characters released so far
    _tokens: list[tuple[int, Token]] = field(default_factory=list)  # where each begins

    def echo(self, raw: bytes) -> str:
        """Return the text of a given prompt, less an unfinished character, which the answer may
        complete. Stop texts do not end it.
        """
        return self._decoder.decode(raw)

    def add(self, raw: bytes, token: Token | None = None) -> Released:
        """Take the bytes of one more token; return what may be sent."""
        if token is not None:
            self._tokens.append((self._sent + len(self._held), token))
        self._held += self._decoder.decode(raw)
        found = [(self._held.find(stop) + len(stop), len(stop)) for stop in self._met()]
        if found:
            end, length = min(found, key=lambda place: (place[0], -place[1]))
            return self._release(end - length, stopped=True)
        return self._release(len(self._held) - self._risky())

    def end(self) -> Released:
        """Return what is left when no more tokens come."""
        return self._release(len(self._held))

    def _met(self) -> list[str]:
        return [stop for stop in self.stops if stop and stop in self._held]

    def _risky(self) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        longest = max((len(stop) for stop in self.stops), default=0) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-size:]
            if any(stop.startswith(tail) for stop in self.stops):
                return size
        return 0

    def _release(self, count: int, *, stopped: bool = False) -> Released:
        text, self._held = self._held[:count], self._held[count:]
        self._sent += count
        # A token goes with the text it begins; at a stop, those that begin before it.
        ready = [t for start, t in self._tokens if start < self._sent or not self._held]
        if stopped:
            ready = [t for start, t in self._tokens if start < self._sent]
            self._held = ""
        self._tokens = self._tokens[len(ready) :]
        return Released(text, tuple(ready), stopped)
