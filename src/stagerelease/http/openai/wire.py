"""Events of an engine as OpenAI's documents: completions and chat, whole and streamed.

Every document that carries or ends text says that a machine wrote it, and which revision of which
model: in the field ``stagerelease``, as the header ``X-Stagerelease-Output`` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

from stagerelease.engine import wire as engine_wire
from stagerelease.engine.ports import Admitted, Ended, Event, Piece, Token
from stagerelease.http.openai.errors import limit_headers
from stagerelease.inference.service import ModelRow, Permit

MACHINE = "machine-written"


def permit_headers(permit: Permit) -> dict[str, str]:
    """Return what every answer to a request that was let through says, refusals of the engine among
    them: what is left, and whether what was asked is kept.
    """
    return {
        **limit_headers(permit.left),
        "Cache-Control": "no-store",
        "X-Stagerelease-Request": permit.request_id,
        "X-Stagerelease-Prompt-Logging": "on" if permit.prompt_logging else "off",
    }


def answer_headers(permit: Permit) -> dict[str, str]:
    """Return what every answer of a model says of itself, before its first byte."""
    return {
        **permit_headers(permit),
        "X-Accel-Buffering": "no",
        "X-Stagerelease-Output": f"{MACHINE}; model={engine_wire.model_id(permit.checkpoint)}",
    }


def label(permit: Permit) -> dict[str, Any]:
    """Return the field that labels text as machine-written."""
    return {
        "output": MACHINE,
        "model": permit.checkpoint.repo_id,
        "revision": permit.checkpoint.commit,
        "stage": permit.stage,
        "request": permit.request_id,
        "prompt_logging": permit.prompt_logging,
    }


@dataclass
class Usage:
    """Tokens of one request so far. ``prompt_tokens`` is None while nobody tells how many."""

    prompt_tokens: int | None = 0
    reused: int = 0
    ended: dict[int, int] = field(default_factory=dict)
    computed: dict[int, int] = field(default_factory=dict)

    def see(self, event: Event) -> None:
        """Note what an event adds."""
        if isinstance(event, Admitted):
            self.prompt_tokens = sum(event.prompt_tokens)
        elif isinstance(event, Ended):
            self.ended[event.index] = event.completion_tokens
            self.reused += event.reused
        else:
            self.computed[event.index] = self.computed.get(event.index, 0) + event.computed

    def suppose(self, sequences: int, *, each: int) -> None:
        """Count ``each`` token of every sequence that did not end: what came of it is not all."""
        self.computed |= dict.fromkeys(range(sequences), each)

    def settle(self) -> None:
        """Note that nothing was computed if nobody told how much."""
        self.prompt_tokens = self.prompt_tokens or 0

    @property
    def completion_tokens(self) -> int:
        """Return the tokens computed; of a sequence cut short, those that are known of."""
        cut = sum(count for index, count in self.computed.items() if index not in self.ended)
        return sum(self.ended.values()) + cut

    def document(self) -> dict[str, Any]:
        """Return the usage as OpenAI tells it."""
        prompt = self.prompt_tokens or 0
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.reused},
        }


class Shape(Protocol):
    """How one kind of answer is written."""

    def opening(self) -> list[dict[str, Any]]:
        """Return the documents that a stream begins with."""
        ...

    def part(self, piece: Piece) -> dict[str, Any] | None:
        """Return the document of a piece in a stream, or None when it adds nothing."""
        ...

    def end(self, ended: Ended) -> dict[str, Any]:
        """Return the document that ends one sequence in a stream."""
        ...

    def usage(self, usage: Usage) -> dict[str, Any]:
        """Return the document that ends a stream with its usage."""
        ...

    def whole(
        self, pieces: Mapping[int, Sequence[Piece]], ends: Mapping[int, Ended], usage: Usage
    ) -> dict[str, Any]:
        """Return everything in one document."""
        ...


@dataclass
class _Envelope:
    permit: Permit
    told: bool
    include_usage: bool = False

    def envelope(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        document = {
            "id": self.permit.request_id,
            "object": kind,
            "created": int(self.permit.at.timestamp()),
            "model": self.permit.checkpoint.repo_id,
            "system_fingerprint": self.permit.checkpoint.commit,
            "choices": choices,
            **more,
        }
        if self.include_usage:
            document.setdefault("usage", None)
        return document


def _joined(pieces: Sequence[Piece]) -> Piece:
    index = pieces[0].index if pieces else 0
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    return Piece(index, "".join(piece.text for piece in pieces), tokens)


@dataclass
class Completions(_Envelope):
    """``text_completion`` documents."""

    KIND: ClassVar[str] = "text_completion"

    def __post_init__(self) -> None:
        """Start every sequence at its first character."""
        self._places: dict[int, engine_wire.Places] = defaultdict(engine_wire.Places)

    def opening(self) -> list[dict[str, Any]]:
        """See ``Shape``."""
        return []

    def part(self, piece: Piece) -> dict[str, Any] | None:
        """See ``Shape``."""
        if not piece.text and not piece.tokens:
            return None
        return self.envelope(self.KIND, [self._choice(piece)])

    def _choice(self, piece: Piece) -> dict[str, Any]:
        places = self._places[piece.index] if self.told else None
        return engine_wire.choice_of(piece, places)

    def end(self, ended: Ended) -> dict[str, Any]:
        """See ``Shape``."""
        choice = {
            "index": ended.index,
            "text": "",
            "logprobs": None,
            "finish_reason": ended.reason,
        }
        return self.envelope(self.KIND, [choice], stagerelease=label(self.permit))

    def usage(self, usage: Usage) -> dict[str, Any]:
        """See ``Shape``."""
        return self.envelope(self.KIND, [], usage=usage.document(), stagerelease=label(self.permit))

    def whole(
        self, pieces: Mapping[int, Sequence[Piece]], ends: Mapping[int, Ended], usage: Usage
    ) -> dict[str, Any]:
        """See ``Shape``."""
        choices = []
        for index in sorted(ends):
            choice = self._choice(_joined(pieces.get(index, ())))
            choices.append(choice | {"index": index, "finish_reason": ends[index].reason})
        return self.envelope(
            self.KIND, choices, usage=usage.document(), stagerelease=label(self.permit)
        )


def _chat_token(id_: int, text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(engine_wire.bytes_of(text)), "id": id_}


def _chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    return {
        "content": [
            _chat_token(t.id, t.text, t.logprob)
            | {"top_logprobs": [_chat_token(*alternative) for alternative in t.top]}
            for t in tokens
        ],
        "refusal": None,
    }


@dataclass
class Chat(_Envelope):
    """``chat.completion`` documents."""

    n: int = 1

    def __post_init__(self) -> None:
        """Start with nobody having said anything."""
        self._begun: set[int] = set()
        self._told: set[int] = set()  # whose figures have begun

    def opening(self) -> list[dict[str, Any]]:
        """Say of each sequence who speaks."""
        return [self._chunk(index, {"role": "assistant", "content": ""}) for index in range(self.n)]

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        reason: str | None = None,
        tokens: Sequence[Token] = (),
    ) -> dict[str, Any]:
        logprobs = _chat_logprobs(tokens) if self.told and tokens else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self.envelope("chat.completion.chunk", [choice])

    def part(self, piece: Piece) -> dict[str, Any] | None:
        """See ``Shape``."""
        text = piece.text
        if piece.index not in self._begun:  # the blank after "Assistant:" is the template's
            text = text.lstrip()
            self._begun |= {piece.index} if text else set()
        tokens = self._unled(piece)
        if not text and not tokens:
            return None
        return self._chunk(piece.index, {"content": text}, tokens=tokens)

    def _unled(self, piece: Piece) -> Sequence[Token]:
        """Return a piece's tokens less the blanks that the content does not begin with."""
        if piece.index in self._told:
            return piece.tokens
        for at, token in enumerate(piece.tokens):
            if text := token.text.lstrip():
                self._told.add(piece.index)
                return [replace(token, text=text), *piece.tokens[at + 1 :]]
        return []

    def end(self, ended: Ended) -> dict[str, Any]:
        """See ``Shape``."""
        return self._chunk(ended.index, {}, reason=ended.reason) | {
            "stagerelease": label(self.permit)
        }

    def usage(self, usage: Usage) -> dict[str, Any]:
        """See ``Shape``."""
        return self.envelope(
            "chat.completion.chunk", [], usage=usage.document(), stagerelease=label(self.permit)
        )

    def whole(
        self, pieces: Mapping[int, Sequence[Piece]], ends: Mapping[int, Ended], usage: Usage
    ) -> dict[str, Any]:
        """See ``Shape``."""
        choices = []
        for index in sorted(ends):
            piece = _joined(pieces.get(index, ()))
            told = _chat_logprobs(self._unled(piece)) if self.told else None
            message = {"role": "assistant", "content": piece.text.lstrip(), "refusal": None}
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "logprobs": told,
                    "finish_reason": ends[index].reason,
                }
            )
        return self.envelope(
            "chat.completion", choices, usage=usage.document(), stagerelease=label(self.permit)
        )


def model_document(row: ModelRow, state: str, progress: float | None) -> dict[str, Any]:
    """Return a model as the list of models shows it."""
    return {
        "id": row.repo_id,
        "object": "model",
        "created": int(row.created_at.timestamp()),
        "owned_by": row.repo_id.partition("/")[0],
        "stagerelease": {
            "revision": row.commit,
            "stage": row.stage,
            "parameters": row.parameters,
            "context": row.context,
            "prompt_logging": row.prompt_logging,
            "grant": row.grant_id,
            "state": state,
            "progress": progress,
        },
    }
