"""An OpenAI-compatible server that knows nothing of us, over the small engine.

It answers as vLLM does (``/tokenize``, token numbers, ``prompt_logprobs``) or, plainer, as any
other; what it is not asked for in its own words it ignores, as such servers do.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from small_engine import SmallEngine
from stagerelease.engine.ports import Admitted, Checkpoint, Ended, Job, Piece, Sampling, Token
from stagerelease.kernel.errors import DomainError, TooMany

NAME = "served-name"


def foreign_app(engine: SmallEngine, checkpoint: Checkpoint, *, vllm: bool) -> Starlette:
    def ids_of(prompt: Any) -> tuple[int, ...]:
        return tuple(prompt.encode() if isinstance(prompt, str) else prompt)

    async def tokenize(request: Request) -> Response:
        body = await request.json()
        if not vllm:
            return JSONResponse({"detail": "Not Found"}, 404)
        return JSONResponse({"count": len(ids_of(body["prompt"])), "max_model_len": engine.context})

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": NAME, "object": "model"}]})

    async def completions(request: Request) -> Response:
        body = await request.json()
        if "stagerelease" in body or body["model"] != NAME:
            return error(404, "The model does not exist.")
        if body.get("prompt_logprobs") is not None and vllm:
            return await prompt_logprobs(body)
        job = job_of(body)
        events = engine.generate(job)
        try:
            first = await anext(events)
        except TooMany:
            return error(429, "Too many requests")
        except DomainError as refused:
            long = refused.reason == "engine.context"
            return error(400, "This exceeds the maximum context length" if long else "Bad request")
        assert isinstance(first, Admitted)
        chunks = streamed(job, body, first, events)
        if body.get("stream"):
            return StreamingResponse(chunks, media_type="text/event-stream")
        parts = [json.loads(c[6:]) async for c in chunks if c != b"data: [DONE]\n\n"]
        return JSONResponse({"choices": [parts[0]["choices"][0]], "usage": parts[-1]["usage"]})

    def job_of(body: dict[str, Any]) -> Job:
        wider = ("top_k", "min_p", "repetition_penalty") if vllm else ()
        names = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", *wider)
        sampling = {name: body[name] for name in names if name in body}
        bias = {int(k): v for k, v in body.get("logit_bias", {}).items()}
        prompt = body["prompt"]
        return Job(
            checkpoint,
            (prompt if isinstance(prompt, str) else tuple(prompt),),
            max_tokens=body["max_tokens"],
            sampling=Sampling(**sampling, logit_bias=bias),
            stop=body.get("stop", ()),
            logprobs=body.get("logprobs"),
            echo=body.get("echo", False),
        )

    async def streamed(
        job: Job, body: Any, admitted: Admitted, events: Any
    ) -> AsyncIterator[bytes]:
        usage = {"prompt_tokens": admitted.prompt_tokens[0], "completion_tokens": 0}
        async for event in events:
            choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": None}
            choice["logprobs"] = None
            if isinstance(event, Piece):
                choice["text"] = event.text
                if event.tokens:
                    choice["logprobs"] = figures(event.tokens)
                if vllm and body.get("return_token_ids"):
                    choice["token_ids"] = [t.id for t in event.tokens]
            elif isinstance(event, Ended):
                choice["finish_reason"] = event.reason
                usage["completion_tokens"] = event.completion_tokens
            yield chunk([choice], **counted(body, usage, event))
        yield chunk([], usage=usage)
        yield b"data: [DONE]\n\n"

    def counted(body: Any, usage: dict[str, int], event: Any) -> dict[str, Any]:
        if not (vllm and body.get("stream_options", {}).get("continuous_usage_stats")):
            return {}
        if isinstance(event, Piece):
            usage["completion_tokens"] += event.computed
        return {"usage": usage}

    def figures(tokens: tuple[Token, ...]) -> dict[str, Any]:
        return {
            "tokens": [t.text for t in tokens],
            "token_logprobs": [t.logprob for t in tokens],
            "top_logprobs": [{text: f for _, text, f in t.top} or None for t in tokens],
            "text_offset": [0] * len(tokens),
        }

    def chunk(choices: list[Any], **more: Any) -> bytes:
        document = {"id": "cmpl-1", "object": "text_completion", "created": int(time.time())}
        document |= {"model": NAME, "choices": choices, **more}
        return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"

    async def prompt_logprobs(body: Any) -> Response:
        ids = ids_of(body["prompt"])
        [scored] = await engine.score(checkpoint, [ids], top=body["prompt_logprobs"])
        told: list[Any] = [None]
        for token in scored[1:]:
            every = [(i, text, f, rank) for rank, (i, text, f) in enumerate(token.top)]
            every.append((token.id, token.text, token.logprob, token.rank))
            told.append(
                {
                    str(i): {"logprob": f, "rank": rank + 1, "decoded_token": text}
                    for i, text, f, rank in every
                }
            )
        choice = {"index": 0, "text": "x", "prompt_logprobs": told, "prompt_token_ids": list(ids)}
        return JSONResponse({"choices": [choice]})

    return Starlette(
        routes=[
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/tokenize", tokenize, methods=["POST"]),
        ]
    )


def error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "BadRequestError"}}, status)
