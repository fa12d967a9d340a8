"""How jobs and events look between processes: OpenAI's completions, and what we add to them.

Everything an OpenAI-compatible server knows has its usual name and place. What it does not know
(which files make the model, which number a token has) goes into the field ``stagerelease`` of a
body, and beside the usual lists of ``logprobs``, where others look past it. Pure.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stagerelease.engine.ports import (
    Admitted,
    Checkpoint,
    Ended,
    EngineState,
    Event,
    Job,
    ModelState,
    Piece,
    ScoredToken,
    Token,
)
from stagerelease.kernel.errors import DomainError, FieldError, Invalid, TooMany, Unavailable

EXTENSION = "stagerelease"
MOST_EVENT = 16 << 20
"""Bytes of one event; a server that sends more is not speaking this protocol."""


def model_id(checkpoint: Checkpoint) -> str:
    """Return the name a checkpoint has on the wire: its repository at its revision."""
    return f"{checkpoint.repo_id}@{checkpoint.commit}"


# --- requests -----------------------------------------------------------------------------------


def completion_body(job: Job, *, model: str) -> dict[str, Any]:
    """Return the body that asks for ``job`` in OpenAI's words, streamed, defaults left out."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": [p if isinstance(p, str) else list(p) for p in job.prompts],
        "n": job.n,
        "max_tokens": job.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sampling = job.sampling
    body |= {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if job.stop:
        body["stop"] = list(job.stop)
    if job.logprobs is not None:
        body["logprobs"] = job.logprobs
    if job.echo:
        body["echo"] = True
    return body


def wider_sampling(job: Job) -> dict[str, Any]:
    """Return the parameters OpenAI's own service has not, where they differ from no effect."""
    sampling = job.sampling
    wider: dict[str, Any] = {}
    if sampling.top_k:
        wider["top_k"] = sampling.top_k
    if sampling.min_p:
        wider["min_p"] = sampling.min_p
    if sampling.repetition_penalty != 1:
        wider["repetition_penalty"] = sampling.repetition_penalty
    return wider


def salt_of(job: Job) -> dict[str, Any]:
    """Return the parameter that keeps what is computed for one caller from another's answers, as
    vLLM calls it too. Who shares nothing needs none, so it can be left out where it is not known.
    """
    return {"cache_salt": job.cache_salt} if job.cache_salt else {}


def checkpoint_field(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the extension that says which files make the model."""
    return {
        EXTENSION: {
            "checkpoint": {
                "commit": checkpoint.commit,
                "repo_id": checkpoint.repo_id,
                "files": dict(checkpoint.files),
            }
        }
    }


# --- events -------------------------------------------------------------------------------------


def _top(token: Token | ScoredToken) -> list[list[Any]]:
    return [list(alternative) for alternative in token.top]


class Places:
    """Where the tokens of one sequence begin in its text, in characters, as they come.

    A token that only completes a character begins where that character does.
    """

    def __init__(self) -> None:
        self._at = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def of(self, tokens: Sequence[Token]) -> list[int]:
        """Return where each of the next tokens begins."""
        places = []
        for token in tokens:
            places.append(self._at)
            self._at += len(self._decoder.decode(bytes_of(token.text)))
        return places


def bytes_of(text: str) -> bytes:
    """Return the bytes of a token by what it is shown as, ``bytes:\\xNN`` or text."""
    if _RAW.fullmatch(text):
        return bytes(int(pair, 16) for pair in _BYTE.findall(text))
    return text.encode("utf-8", "replace")


_RAW = re.compile(r"bytes:(?:\\x[0-9a-f]{2})+")
_BYTE = re.compile(r"\\x([0-9a-f]{2})")


def _alternatives(token: Token) -> dict[str, float | None] | None:
    """Return what else was likely, by its text, and the token itself, as OpenAI tells them."""
    if not token.top:
        return None
    # Two tokens may read alike; the likelier one, which comes first, keeps the place.
    told: dict[str, float | None] = {text: figure for _, text, figure in reversed(token.top)}
    told.setdefault(token.text, token.logprob)
    return told


def logprobs_of(tokens: Sequence[Token], places: Places) -> dict[str, Any]:
    """Return the ``logprobs`` of a choice: OpenAI's four lists, and the ids beside them."""
    return {
        "tokens": [t.text for t in tokens],
        "token_logprobs": [t.logprob for t in tokens],
        "top_logprobs": [_alternatives(t) for t in tokens],
        "text_offset": places.of(tokens),
        "token_ids": [t.id for t in tokens],
        "top_ids": [_top(t) for t in tokens],
    }


def choice_of(piece: Piece, places: Places | None) -> dict[str, Any]:
    """Return a piece as a choice; ``places`` of its sequence, if figures were asked for."""
    return {
        "index": piece.index,
        "text": piece.text,
        "logprobs": logprobs_of(piece.tokens, places) if places is not None else None,
        "finish_reason": None,
    }


def piece_choice(piece: Piece, places: Places | None) -> dict[str, Any]:
    """Return a piece as a choice between processes: with its count, where that is not one."""
    choice = choice_of(piece, places)
    return choice if piece.computed == 1 else choice | {EXTENSION: {"computed": piece.computed}}


def end_choice(ended: Ended) -> dict[str, Any]:
    """Return the last choice of a sequence."""
    return {
        "index": ended.index,
        "text": "",
        "logprobs": None,
        "finish_reason": ended.reason,
        EXTENSION: {"completion_tokens": ended.completion_tokens, "reused": ended.reused},
    }


def _tokens(logprobs: Mapping[str, Any]) -> tuple[Token, ...]:
    return tuple(
        Token(id_, text, figure, tuple((i, t, f) for i, t, f in top))
        for id_, text, figure, top in zip(
            logprobs["token_ids"],
            logprobs["tokens"],
            logprobs["token_logprobs"],
            logprobs["top_ids"],
            strict=True,
        )
    )


def events_of(document: Mapping[str, Any]) -> list[Event]:
    """Return the events that one of our own server's chunks stands for."""
    events: list[Event] = []
    extension = document.get(EXTENSION)
    if extension is not None and "prompt_tokens" in extension:
        events.append(Admitted(tuple(extension["prompt_tokens"])))
    for choice in document["choices"]:
        if choice["finish_reason"] is not None:
            told = choice[EXTENSION]
            events.append(
                Ended(
                    choice["index"],
                    choice["finish_reason"],
                    told["completion_tokens"],
                    told["reused"],
                )
            )
        else:
            logprobs = choice["logprobs"]
            tokens = _tokens(logprobs) if logprobs is not None else ()
            computed = choice.get(EXTENSION, {}).get("computed", 1)
            events.append(Piece(choice["index"], choice["text"], tokens, computed))
    return events


# --- server-sent events (WHATWG HTML §9.2) ------------------------------------------------------


def sse(document: Any) -> bytes:
    """Return one event. JSON is all ASCII here, so that no client splits a line within it."""
    return (
        b"data: " + json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n\n"
    )


SSE_DONE = b"data: [DONE]\n\n"


class SseReader:
    """Takes bytes as they come and gives back the data of whole events.

    Lines end at LF or CRLF alone: what else Unicode calls a line end may stand within JSON.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, more: bytes) -> Iterator[bytes]:
        """Yield the data of each event that ``more`` completes.

        Raises:
            ValueError: an event is larger than ``MOST_EVENT``.
        """
        *lines, self._rest = (self._rest + more).split(b"\n")
        if len(self._rest) > MOST_EVENT:
            raise ValueError("an event without an end")
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data = []


# --- errors -------------------------------------------------------------------------------------

_TYPES: tuple[tuple[type[DomainError], int, str], ...] = (
    (Invalid, 400, "invalid_request_error"),
    (TooMany, 429, "rate_limit_error"),
    (Unavailable, 503, "unavailable_error"),
)


def status_and_type(error: DomainError) -> tuple[int, str]:
    """Return the HTTP status of an engine's refusal and its type in OpenAI's words."""
    for cls, status, name in _TYPES:
        if isinstance(error, cls):
            return status, name
    return 500, "server_error"


def error_document(error: DomainError) -> dict[str, Any]:
    """Return a refusal in OpenAI's shape; ``retry_after`` is ours."""
    _, name = status_and_type(error)
    param = error.fields[0].field if error.fields else None
    body = {"message": error.sentence, "type": name, "param": param, "code": error.reason}
    if isinstance(error, TooMany | Unavailable):
        body["retry_after"] = str(error.retry_after)
    return {"error": body}


def error_of(document: Any, status: int) -> DomainError:
    """Return the refusal that one of our own server's error documents stands for."""
    body = document.get("error") if isinstance(document, Mapping) else None
    if not isinstance(body, Mapping) or not isinstance(body.get("code"), str):
        return Unavailable(
            f"The inference process answered {status} without a reason.", reason="engine.away"
        )
    sentence, reason = str(body.get("message")), body["code"]
    wait = str(body.get("retry_after", "5"))
    seconds = int(wait) if wait.isdecimal() else 5
    if body.get("type") == "rate_limit_error":
        return TooMany(sentence, retry_after=seconds, reason=reason)
    if body.get("type") == "invalid_request_error":
        param = body.get("param")
        fields = [FieldError(param, sentence)] if isinstance(param, str) else []
        return Invalid(sentence, reason=reason, fields=fields)
    return Unavailable(sentence, retry_after=seconds, reason=reason)


# --- scores and state ---------------------------------------------------------------------------


def score_document(tokens: Sequence[ScoredToken]) -> dict[str, Any]:
    """Return one scored text as columns."""
    return {
        "token_ids": [t.id for t in tokens],
        "tokens": [t.text for t in tokens],
        "token_logprobs": [t.logprob for t in tokens],
        "ranks": [t.rank for t in tokens],
        "top_ids": [_top(t) for t in tokens],
    }


def scores_of(data: Mapping[str, Any]) -> tuple[ScoredToken, ...]:
    """Return the tokens of one scored text."""
    columns = zip(
        data["token_ids"],
        data["tokens"],
        data["token_logprobs"],
        data["ranks"],
        data["top_ids"],
        strict=True,
    )
    return tuple(
        ScoredToken(id_, text, figure, rank, tuple((i, t, f) for i, t, f in top))
        for id_, text, figure, rank, top in columns
    )


def all_scores_of(document: Mapping[str, Any]) -> tuple[tuple[ScoredToken, ...], ...]:
    """Return the tokens of every scored text."""
    return tuple(scores_of(data) for data in document["data"])


def state_document(state: EngineState) -> dict[str, Any]:
    """Return what an engine is doing, as OpenAI's list of models with our fields beside."""
    return {
        "object": "list",
        "data": [
            {
                "id": model.commit,
                "object": "model",
                "owned_by": EXTENSION,
                "state": model.state,
                "progress": model.progress,
                "bytes": model.bytes,
                "dtype": model.dtype,
            }
            for model in state.models
        ],
        "running": state.running,
        "waiting": state.waiting,
        "draining": state.draining,
        "figures": dict(state.figures),
    }


def state_of(document: Mapping[str, Any]) -> EngineState:
    """Return the state one of our own servers tells."""
    return EngineState(
        models=tuple(
            ModelState(m["id"], m["state"], m["progress"], m["bytes"], m["dtype"])
            for m in document["data"]
        ),
        running=document["running"],
        waiting=document["waiting"],
        draining=document["draining"],
        figures=document["figures"],
    )
