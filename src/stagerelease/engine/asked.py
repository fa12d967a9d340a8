"""What a web process may ask of the inference process: the shape of bodies, read with suspicion."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from starlette.requests import Request

from stagerelease.engine.ports import Checkpoint, Job, Prompt, Sampling
from stagerelease.kernel.errors import FieldError, Invalid

MOST_BODY = 16 << 20
"""Bytes of one request: a body the web process takes, and the list of a checkpoint's files."""


class _In(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class CheckpointIn(_In):
    """Which files make the model."""

    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    repo_id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    files: dict[str, Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]]


class ExtensionIn(_In):
    """What an OpenAI client does not send."""

    checkpoint: CheckpointIn


class CompletionIn(_In):
    """A request for completions; what is not listed here is looked past."""

    model: str
    prompt: str | list[int] | list[str | list[int]]
    n: int = 1
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[str, float] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: int | None = None
    echo: bool = False
    stream: bool = False
    cache_salt: Annotated[str, StringConstraints(max_length=200)] = ""
    stagerelease: ExtensionIn | None = None


class ScoreIn(_In):
    """A request for the figures of given texts."""

    model: str
    texts: list[str | list[int]]
    top: int = 0
    stagerelease: ExtensionIn | None = None


Asked = TypeVar("Asked", CompletionIn, ScoreIn)


async def read_body(request: Request, shape: type[Asked]) -> Asked:
    """Return the body of a request.

    Raises:
        Invalid: reason ``engine.body`` (no JSON, or too much of it) or ``engine.parameter``.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise Invalid("The body is too large.", reason="engine.body")
    try:
        return shape.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{where}: {first['msg']}.", reason="engine.parameter") from None
    except (ValueError, RecursionError):
        raise Invalid("The body is not JSON.", reason="engine.body") from None


def job_of(body: CompletionIn, checkpoint: Checkpoint) -> Job:
    """Return the job a body asks for."""
    return Job(
        checkpoint=checkpoint,
        prompts=_prompts(body.prompt),
        n=body.n,
        max_tokens=body.max_tokens,
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            repetition_penalty=body.repetition_penalty,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            logit_bias=_biases(body.logit_bias or {}),
            seed=body.seed,
        ),
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or [],
        logprobs=body.logprobs,
        echo=body.echo,
        cache_salt=body.cache_salt,
    )


def _prompts(prompt: str | list[int] | list[str | list[int]]) -> tuple[Prompt, ...]:
    if isinstance(prompt, str):
        return (prompt,)
    ids = tuple(item for item in prompt if isinstance(item, int))
    if ids:
        return (ids,)
    return tuple(p if isinstance(p, str) else tuple(p) for p in prompt if not isinstance(p, int))


def _biases(given: dict[str, float]) -> dict[int, float]:
    try:
        return {int(token): bias for token, bias in given.items()}
    except ValueError:
        odd = "logit_bias names a token by no number."
        raise Invalid(odd, reason="engine.token", fields=[FieldError("logit_bias", odd)]) from None
