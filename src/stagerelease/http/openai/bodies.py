"""What may be asked below ``/v1``, read strictly: what is not understood is refused, not ignored.

A parameter that OpenAI's service has and base models have not is named in the refusal; so is one
nobody knows, because a caller who misspells ``temperature`` should hear of it.

What is wrong is said once: a list is left at its first wrong item, and a large body is read in a
thread, when it is known who sent it. A million faults would be a second of everybody's time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Never, TypeVar

from fastapi import Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError
from starlette.concurrency import run_in_threadpool

from stagerelease.engine.ports import MOST_LOGPROBS, MOST_SEQUENCES, Prompt, Sampling
from stagerelease.engine.rules import MOST_BIAS, MOST_OWN_STOPS, MOST_STOP
from stagerelease.http.begin import BeginWork
from stagerelease.inference.prompting import CHAT_STOP, MOST_FIELD, chat_prompt, metadata_prompt
from stagerelease.kernel.errors import FieldError, Invalid

NOT_HERE = {
    "suffix": "Text is continued here, never filled in between two ends.",
    "best_of": "Every answer computed is sent: ask for n, and choose yourself.",
    "tools": "These are base models: they know no tools.",
    "tool_choice": "These are base models: they know no tools.",
    "functions": "These are base models: they know no functions.",
    "function_call": "These are base models: they know no functions.",
    "response_format": "These are base models: no form of answer can be promised.",
}
"""Parameters of OpenAI's service that are refused, and why."""
CHAT_TOKENS = 128
"""New tokens of an answer in a conversation, when the caller does not say."""

SMALL = 32 * 1024
"""Bytes of a body that is read at once."""
MOST_BRACKETS = 50_000
"""Lists and objects of a body, in text or not; making many more takes a second of every thread."""

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Text = Annotated[str, Field(max_length=1_000_000)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=MOST_STOP)]
Short = Annotated[str, Field(max_length=MOST_FIELD)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, document: Any) -> Any:
        """Return what is given: null is not. Of names nobody knows, the first is enough."""
        if not isinstance(document, Mapping):
            return document
        given = {name: value for name, value in document.items() if value is not None}
        foreign = next((name for name in given if name not in cls.model_fields), None)
        if foreign is None:
            return given
        known = {name: given[name] for name in cls.model_fields if name in given}
        return known | {foreign: given[foreign]}


def _require_few(biases: Any) -> Any:
    """Refuse too many before each is looked at."""
    if isinstance(biases, Mapping) and len(biases) > MOST_BIAS:
        raise PydanticCustomError(
            "too_many", "At most {most} tokens are biased", {"most": MOST_BIAS}
        )
    return biases


class StreamOptions(_Body):
    """What a stream tells beside text."""

    include_usage: bool = False


class MetadataIn(_Body):
    """Fields of the text that is to be continued (an extension; see docs/inference.md)."""

    title: Short = ""
    author: Short = ""
    date: Short = ""
    domain: Short = ""
    article: Text = ""


class SamplingBody(_Body):
    """What completions and chat have in common."""

    model: Annotated[str, Field(min_length=1, max_length=400)]
    n: int = Field(default=1, ge=1, le=MOST_SEQUENCES)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=2**31)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0.01, le=10)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-100, le=100)]], BeforeValidator(_require_few)
    ] = Field(default_factory=dict)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_OWN_STOPS, fail_fast=True)] = Field(
        default_factory=list
    )
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=512)] = ""

    @property
    def stops(self) -> list[str]:
        """Return the stop texts."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    def sampling(self) -> Sampling:
        """Return how the next token is chosen."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=_biases(self.logit_bias),
            seed=self.seed,
        )


class CompletionBody(SamplingBody):
    """A request for completions."""

    prompt: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_SEQUENCES, fail_fast=True)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_SEQUENCES, fail_fast=True)]
    ) = ""
    max_tokens: int = Field(default=16, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)
    echo: bool = False
    metadata: MetadataIn | None = None

    def prompts(self) -> tuple[Prompt, ...]:
        """Return the prompts, the fields of ``metadata`` written before.

        Raises:
            Invalid: there is nothing to continue, or two things at once.
        """
        if self.metadata is not None:
            return (self._from_metadata(self.metadata),)
        if isinstance(self.prompt, str):
            if not self.prompt:
                _wrong(
                    "prompt", "There is no prompt; a text to continue is needed.", "engine.empty"
                )
            return (self.prompt,)
        ids = tuple(item for item in self.prompt if isinstance(item, int))
        if ids:
            return (ids,)
        return tuple(
            item if isinstance(item, str) else tuple(item)
            for item in self.prompt
            if not isinstance(item, int)
        )

    def _from_metadata(self, metadata: MetadataIn) -> str:
        if not isinstance(self.prompt, str) or (self.prompt and metadata.article):
            _wrong("metadata", "Fields go with one text: metadata.article, or a string as prompt.")
        fields = metadata.model_dump(exclude={"article"})
        if not any(fields.values()):
            _wrong("metadata", "At least one of title, author, date and domain is needed.")
        return metadata_prompt(fields, metadata.article or self.prompt)


class Part(_Body):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class MessageIn(_Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(min_length=1, max_length=100, fail_fast=True)]
    name: Annotated[str, Field(max_length=64)] = ""

    @model_validator(mode="before")
    @classmethod
    def _silent(cls, document: Any) -> Any:
        """An answer of no text comes back as null from some clients."""
        if isinstance(document, Mapping) and document.get("role") == "assistant":
            return {**document, "content": document.get("content") or ""}
        return document

    @property
    def said(self) -> tuple[str, str]:
        """Return who speaks and what they say."""
        parts = self.content if isinstance(self.content, list) else []
        text = "".join(p.text for p in parts) if parts else str(self.content)
        return ("system" if self.role == "developer" else self.role), text


class ChatBody(SamplingBody):
    """A request for the next turn of a conversation."""

    messages: Annotated[list[MessageIn], Field(min_length=1, max_length=500, fail_fast=True)]
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)

    @property
    def most(self) -> int:
        """Return how many new tokens are asked for."""
        return self.max_completion_tokens or self.max_tokens or CHAT_TOKENS

    @property
    def stops(self) -> list[str]:
        """Return the stop texts: the caller's, and where the user's next turn would begin."""
        return [*super().stops, CHAT_STOP]

    def prompts(self) -> tuple[Prompt, ...]:
        """Return the conversation as the text that is continued."""
        return (chat_prompt([message.said for message in self.messages]),)


class ScoreBody(_Body):
    """A request for the figures of given texts (an extension)."""

    model: Annotated[str, Field(min_length=1, max_length=400)]
    texts: Annotated[
        list[Text | TokenIds], Field(min_length=1, max_length=MOST_SEQUENCES, fail_fast=True)
    ]
    top: int = Field(default=0, ge=0, le=MOST_LOGPROBS)

    def prompts(self) -> tuple[Prompt, ...]:
        """Return the texts."""
        return tuple(text if isinstance(text, str) else tuple(text) for text in self.texts)


Body = TypeVar("Body", CompletionBody, ChatBody, ScoreBody)


async def read_body(request: Request, begin: BeginWork, shape: type[Body]) -> Body:
    """Return the body of a request; null means not given.

    Raises:
        Unauthenticated: it is a large one, of somebody who is not known.
        Invalid: it is not JSON, or not of this shape; says which parameter.
    """
    raw = await request.body()
    if len(raw) <= SMALL:
        return parse(raw, shape)

    def read() -> Body:
        with begin(read_only=True):
            pass  # whoever asks is known
        return parse(raw, shape)

    return await run_in_threadpool(read)


def parse(raw: bytes, shape: type[Body]) -> Body:
    """Return what a body says; raises as ``read_body``."""
    if raw.count(b"[") + raw.count(b"{") > MOST_BRACKETS:
        raise Invalid("The body holds too many lists.", reason="invalid_json")
    try:
        document = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Invalid("The body is not JSON.", reason="invalid_json") from None
    if not isinstance(document, Mapping):
        raise Invalid("The body is a JSON object.", reason="invalid_json")
    given = {str(name): value for name, value in document.items() if value is not None}
    _refuse_foreign(given, shape)
    try:
        body = shape.model_validate(given)
    except (ValidationError, OverflowError) as error:
        raise _refusal_of(error) from None
    _require_sense(body)
    return body


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON")


def _refuse_foreign(given: dict[str, Any], shape: type[BaseModel]) -> None:
    if given.get("best_of") == given.get("n", 1):
        given.pop("best_of", None)
    for name in given:
        if name in shape.model_fields:
            continue
        why = NOT_HERE.get(name, "")
        shown = name[:100].encode("ascii", "backslashreplace").decode()
        sentence = f"Unrecognized request argument supplied: {shown}. {why}".strip()
        _wrong(shown, sentence, "unsupported_parameter" if why else "unknown_parameter")


def _refusal_of(error: ValidationError | OverflowError) -> Invalid:
    if isinstance(error, OverflowError):
        return Invalid("A number is too large.")
    first = error.errors(include_input=False, include_url=False)[0]
    # Branches of a union have names of their own in the path; the parameter's is what helps.
    where = ".".join(str(p) for p in first["loc"] if isinstance(p, int) or p.isidentifier())
    sentence = f"{where or 'The body'}: {first['msg']}."
    return Invalid(sentence, fields=[FieldError(where, sentence)])


def _require_sense(body: Any) -> None:
    if getattr(body, "stream_options", None) is not None and not body.stream:
        _wrong("stream_options", "stream_options are for streams: set stream.")
    if isinstance(body, CompletionBody) and body.max_tokens == 0 and not body.echo:
        _wrong("max_tokens", "max_tokens is 0, and the prompt is not echoed: nothing is asked for.")
    if isinstance(body, ChatBody) and body.top_logprobs and not body.logprobs:
        _wrong("top_logprobs", "top_logprobs needs logprobs to be true.")


def _biases(given: Mapping[str, float]) -> dict[int, float]:
    biases = {}
    for token, bias in given.items():
        if not token.isascii() or not token.isdecimal() or len(token) > 10:
            _wrong("logit_bias", f"logit_bias names {token[:20]!r}, and a token has a number.")
        biases[int(token)] = bias
    return biases


def _wrong(param: str, sentence: str, reason: str = "invalid") -> Never:
    raise Invalid(sentence, reason=reason, fields=[FieldError(param, sentence)])
