"""Speaks to OpenAI-compatible servers that are not ours: vLLM, and whatever else there is.

Each sequence is one request of its own, so that every count is exact; the server's prefix cache
makes that cheap. What such a server cannot tell, it is not made to: a token's number is -1 and a
rank None where they are unknown, prompts whose tokens nobody counts are taken as one token a byte,
and the seed of sequence ``i`` is ``seed + i`` (whether it is kept whatever else is computed, is
that server's promise). What it would silently ignore is refused instead.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

import httpx

from stagerelease.engine import reading, wire
from stagerelease.engine.ports import (
    Admitted,
    Ended,
    EngineState,
    Event,
    Job,
    ModelState,
    Piece,
    Prompt,
    ScoredToken,
    Token,
)
from stagerelease.kernel.errors import DomainError, Invalid, TooMany

Ask = Callable[..., AbstractAsyncContextManager[httpx.Response]]
UNKNOWN = -1
"""The number of a token whose number the server does not tell."""
MOST_QUEUED = 64
"""Events read ahead of whoever takes them; then the server's own flow control holds it back."""


async def generate(ask: Ask, job: Job, *, model: str, vllm: bool) -> AsyncGenerator[Event, None]:
    """Yield the events of ``job``, each sequence by a request of its own."""
    if not vllm and (wider := wire.wider_sampling(job)):
        raise Invalid(
            f"The inference server does not know {', '.join(sorted(wider))}.",
            reason="engine.parameter",
        )
    counts = tuple([await _count(ask, model, prompt, vllm=vllm) for prompt in job.prompts])
    async with AsyncExitStack() as stack:
        answers = [
            await stack.enter_async_context(ask(_body(job, index, model=model, vllm=vllm)))
            for index in range(len(job.prompts) * job.n)
        ]
        for answer in answers:
            if answer.status_code != 200:
                raise await refusal_of(answer)
        yield Admitted(counts)
        queue: asyncio.Queue[Event | DomainError | None] = asyncio.Queue(MOST_QUEUED)
        pumps = [
            asyncio.ensure_future(_pump(answer, index, job.max_tokens, queue))
            for index, answer in enumerate(answers)
        ]
        try:
            left = len(pumps)
            while left:
                event = await queue.get()
                if event is None:
                    left -= 1
                elif isinstance(event, DomainError):
                    raise event
                else:
                    yield event
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


def _body(job: Job, index: int, *, model: str, vllm: bool) -> dict[str, Any]:
    sampling = job.sampling
    if sampling.seed is not None:
        sampling = replace(sampling, seed=sampling.seed + index)
    one = replace(job, prompts=(job.prompts[index // job.n],), n=1, sampling=sampling)
    body = wire.completion_body(one, model=model)
    body["prompt"] = body["prompt"][0]
    if vllm:
        body |= wire.wider_sampling(job) | wire.salt_of(job)
        body["stream_options"] |= {"continuous_usage_stats": True}
        if job.logprobs is not None:
            body["return_token_ids"] = True
    return body


async def _count(ask: Ask, model: str, prompt: Prompt, *, vllm: bool) -> int:
    if not isinstance(prompt, str):
        return len(prompt)
    if vllm:
        async with ask({"model": model, "prompt": prompt}, path="/tokenize") as answer:
            if answer.status_code == 200:
                return reading.read_as(lambda d: int(d["count"]), await reading.whole(answer))
    return len(prompt.encode())


async def _pump(
    answer: httpx.Response, index: int, most: int, queue: asyncio.Queue[Event | DomainError | None]
) -> None:
    """Hand over what one answer says. Whatever is wrong with it ends the job: nobody else would."""
    try:
        async with aclosing(_events(answer, index, most)) as events:
            async for event in events:
                await queue.put(event)
        await queue.put(None)
    except DomainError as error:
        await queue.put(error)
    except Exception as error:  # noqa: BLE001 (a stranger's document may break in any way)
        await queue.put(reading.away(f"its answer broke off ({type(error).__name__})"))


async def _events(
    answer: httpx.Response, index: int, most: int
) -> AsyncGenerator[Piece | Ended, None]:
    """Yield one sequence. How many tokens there were the server's usage tells; where it tells none,
    a piece is taken for one.
    """
    reason: Any = None
    count, told = 0, False
    async with aclosing(reading.documents(answer)) as stream:
        async for document in stream:
            if "error" in document:
                raise reading.away("it broke off with an error")
            before = count
            if usage := document.get("usage"):
                count, told = int(usage["completion_tokens"]), True
            for choice in document.get("choices", ()):
                reason = choice.get("finish_reason") or reason
                text, tokens = choice.get("text") or "", _tokens(choice)
                if not isinstance(text, str):
                    raise reading.away("its answer is of another protocol")
                if not told:
                    count = min(most, before + max(len(tokens), bool(text)))
                if text or tokens or count != before:
                    yield Piece(index, text, tokens, max(0, count - before))
    yield Ended(index, "stop" if reason == "stop" else "length", count)


def _tokens(choice: Mapping[str, Any]) -> tuple[Token, ...]:
    logprobs = choice.get("logprobs")
    if not logprobs or not logprobs.get("tokens"):
        return ()
    texts: list[str] = logprobs["tokens"]
    tops = logprobs.get("top_logprobs") or [None] * len(texts)
    ids = [*(choice.get("prompt_token_ids") or ()), *(choice.get("token_ids") or ())]
    if len(ids) != len(texts):
        ids = [UNKNOWN] * len(texts)
    figures = [_figure(own) if own is not None else None for own in logprobs["token_logprobs"]]
    return tuple(
        Token(id_, text, figure, _likeliest(top))
        for id_, text, figure, top in zip(ids, texts, figures, tops, strict=True)
    )


def _likeliest(top: Mapping[str, float] | None) -> tuple[tuple[int, str, float], ...]:
    ranked = sorted((top or {}).items(), key=lambda item: -item[1])
    return tuple((UNKNOWN, text, _figure(figure)) for text, figure in ranked)


def _figure(value: float) -> float:
    """Return a figure that is a number: no other can be passed on."""
    if not math.isfinite(value):
        raise reading.away("it tells figures that are no numbers")
    return value


async def score(
    ask: Ask, model: str, texts: Sequence[Prompt], *, top: int, vllm: bool
) -> tuple[tuple[ScoredToken, ...], ...]:
    """Return the figures of given texts: exact by vLLM, without most ranks by others.

    Raises:
        Invalid: reason ``engine.score``; the server cannot be asked for a prompt's figures.
    """
    one = _score_by_vllm if vllm else _score_by_echo
    try:
        return tuple([await one(ask, model, text, top) for text in texts])
    except DomainError:
        raise
    except Exception as error:
        raise reading.away("its answer is of another protocol") from error


async def _score_by_vllm(ask: Ask, model: str, text: Prompt, top: int) -> tuple[ScoredToken, ...]:
    body = {"model": model, "prompt": _plain(text), "max_tokens": 1, "temperature": 0}
    choice = await _only_choice(ask, body | {"prompt_logprobs": top, "return_token_ids": True})
    ids, figures = choice.get("prompt_token_ids"), choice.get("prompt_logprobs")
    if not ids or not figures or len(ids) != len(figures):
        raise _cannot_score()
    scored = []
    for id_, alternatives in zip(ids, figures, strict=True):
        if alternatives is None:  # nothing comes before the first
            scored.append(ScoredToken(id_, "", None, None))
            continue
        own = alternatives[str(id_)]
        ranked = sorted(alternatives.items(), key=lambda item: int(item[1]["rank"]))
        best = tuple(
            (int(i), a["decoded_token"] or "", _figure(a["logprob"])) for i, a in ranked[:top]
        )
        text_ = own["decoded_token"] or ""
        scored.append(ScoredToken(id_, text_, _figure(own["logprob"]), own["rank"] - 1, best))
    return tuple(scored)


async def _score_by_echo(ask: Ask, model: str, text: Prompt, top: int) -> tuple[ScoredToken, ...]:
    body = {"model": model, "prompt": _plain(text), "max_tokens": 0, "echo": True, "logprobs": top}
    tokens = _tokens(await _only_choice(ask, body))
    if not tokens:
        raise _cannot_score()
    return tuple(
        ScoredToken(token.id, token.text, token.logprob, _rank(token), token.top)
        for token in tokens
    )


def _rank(token: Token) -> int | None:
    if token.logprob is None:
        return None
    return next((rank for rank, (_, text, _) in enumerate(token.top) if text == token.text), None)


async def _only_choice(ask: Ask, body: Mapping[str, Any]) -> dict[str, Any]:
    async with ask(body) as answer:
        if answer.status_code == 400:
            raise _cannot_score()
        if answer.status_code != 200:
            raise await refusal_of(answer)
        choices = (await reading.whole(answer)).get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise reading.away("its answer is of another protocol")
    return dict(choices[0])


def _cannot_score() -> Invalid:
    return Invalid(
        "The inference server does not tell the figures of a given text.", reason="engine.score"
    )


def _plain(prompt: Prompt) -> str | list[int]:
    return prompt if isinstance(prompt, str) else list(prompt)


async def refusal_of(answer: httpx.Response) -> DomainError:
    """Return what a foreign server's refusal means in the words of the port."""
    document = reading.parse(await answer.aread())
    error = document.get("error", document) if isinstance(document, Mapping) else {}
    message = str(error.get("message", "")) if isinstance(error, Mapping) else ""
    status = answer.status_code
    if status == 429:
        return TooMany("The inference server has no room.", retry_after=2, reason="engine.full")
    if status == 404:
        return Invalid("The inference server does not have this model.", reason="engine.model")
    if status in (400, 422):
        long = "context length" in message or "maximum model length" in message
        reason = "engine.context" if long else "engine.parameter"
        return Invalid(f"The inference server refused: {message[:300]}", reason=reason)
    if status in (401, 403):
        return reading.away("it refused the secret of this process")
    return reading.away(f"it answered {status}")


def state_of(document: Mapping[str, Any]) -> EngineState:
    """Return what a list of models tells: they are there."""
    models = tuple(
        ModelState(str(m.get("id")), "ready", 1.0, 0, "unknown") for m in document.get("data", ())
    )
    return EngineState(models, running=0, waiting=0, draining=False)
