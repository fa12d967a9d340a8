"""Routes below ``/v1``: read, let through, hand to the engine. OpenAI's protocol and a little more.

A bearer token is needed for each: quotas and records need a holder, also where a release is public.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from stagerelease.engine.ports import Engine, Job, Prompt, ScoredToken
from stagerelease.engine.wire import score_document
from stagerelease.http.begin import Begin, BeginWork, bearer_of
from stagerelease.http.openai.bodies import (
    ChatBody,
    CompletionBody,
    SamplingBody,
    ScoreBody,
    read_body,
)
from stagerelease.http.openai.documents import BODY, ERRORS
from stagerelease.http.openai.errors import refusal, speak_openai
from stagerelease.http.openai.running import Generation, while_permitted
from stagerelease.http.openai.wire import (
    Chat,
    Completions,
    Shape,
    Usage,
    answer_headers,
    label,
    model_document,
    permit_headers,
)
from stagerelease.http.openai_shape import error_body
from stagerelease.inference import service as inference
from stagerelease.inference.rules import bound_of
from stagerelease.inference.service import Asked, ModelRow, Permit
from stagerelease.kernel.errors import DomainError, Invalid, Unauthenticated

Scores = tuple[tuple[ScoredToken, ...], ...]

router = APIRouter(
    prefix="/v1", tags=["openai"], dependencies=[Depends(speak_openai)], responses=ERRORS
)


def _asked(
    model: str, kind: str, prompts: tuple[Prompt, ...], *, n: int = 1, max_tokens: int = 0
) -> Asked:
    return Asked(
        model=model,
        kind=kind,
        bounds=[bound_of(prompt) for prompt in prompts],
        prompts=[p if isinstance(p, str) else str(list(p)) for p in prompts],
        n=n,
        max_tokens=max_tokens,
    )


async def _permit(request: Request, begin: BeginWork, asked: Asked) -> Permit:
    state = request.app.state

    def admit() -> Permit:
        with begin(quiet=True) as work:
            return inference.prepare(
                work, state.contexts, asked, inference.house_of(state.settings)
            )

    permit = await run_in_threadpool(admit)
    request.state.permit_headers = permit_headers(permit)
    return permit


def _require_bearer(request: Request) -> None:
    """Refuse who sends no token before their body is read; what it is worth is seen later."""
    if bearer_of(request) is None:
        raise Unauthenticated(
            "No API key was sent.",
            reason="token.missing",
            next_step="Send 'Authorization: Bearer <token>'; an access token of this service is "
            "the API key.",
        )


@router.post("/completions", openapi_extra=BODY[CompletionBody], response_model=None)
async def create_completion(request: Request, begin: Begin) -> Response:
    """Continue one or more texts."""
    _require_bearer(request)
    body = await read_body(request, begin, CompletionBody)
    prompts, sampling = body.prompts(), body.sampling()  # all that may be wrong, before the permit
    asked = _asked(body.model, "completion", prompts, n=body.n, max_tokens=body.max_tokens)
    permit = await _permit(request, begin, asked)
    job = Job(
        checkpoint=permit.checkpoint,
        prompts=prompts,
        n=body.n,
        max_tokens=body.max_tokens,
        sampling=sampling,
        stop=body.stops,
        logprobs=body.logprobs,
        echo=body.echo,
        cache_salt=permit.cache_salt,
    )
    shape = Completions(permit, body.logprobs is not None, _wants_usage(body))
    return Generation(request, permit, job, shape, stream=body.stream)


@router.post("/chat/completions", openapi_extra=BODY[ChatBody], response_model=None)
async def create_chat_completion(request: Request, begin: Begin) -> Response:
    """Continue a conversation, written out as plain text: these are base models."""
    _require_bearer(request)
    body = await read_body(request, begin, ChatBody)
    prompts, sampling = body.prompts(), body.sampling()
    asked = _asked(body.model, "chat", prompts, n=body.n, max_tokens=body.most)
    permit = await _permit(request, begin, asked)
    job = Job(
        checkpoint=permit.checkpoint,
        prompts=prompts,
        n=body.n,
        max_tokens=body.most,
        sampling=sampling,
        stop=body.stops,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        cache_salt=permit.cache_salt,
    )
    shape: Shape = Chat(permit, body.logprobs, _wants_usage(body), n=body.n)
    return Generation(request, permit, job, shape, stream=body.stream)


def _wants_usage(body: SamplingBody) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


@router.post("/score", openapi_extra=BODY[ScoreBody], response_model=None)
async def create_score(request: Request, begin: Begin) -> Response:
    """Tell how likely each token of given texts is, and its rank (an extension)."""
    _require_bearer(request)
    body = await read_body(request, begin, ScoreBody)
    texts = body.prompts()
    permit = await _permit(request, begin, _asked(body.model, "score", texts))
    engine: Engine = request.app.state.engine

    async def score(usage: Usage) -> Scores:
        usage.prompt_tokens = None  # an engine tells how many there are when it has them all
        found = await engine.score(permit.checkpoint, texts, top=body.top)
        usage.prompt_tokens = sum(len(tokens) for tokens in found)
        return found

    scored = await while_permitted(request, permit, score)
    total = sum(len(tokens) for tokens in scored)
    document = {
        "object": "score",
        "model": permit.checkpoint.repo_id,
        "data": [{"index": i, **score_document(tokens)} for i, tokens in enumerate(scored)],
        "usage": {"prompt_tokens": total, "completion_tokens": 0, "total_tokens": total},
        "stagerelease": label(permit) | {"output": "figures"},
    }
    return JSONResponse(document, headers=answer_headers(permit))


@router.post("/embeddings", response_model=None)
async def create_embedding(begin: Begin) -> Response:
    """Refuse embeddings, and say why."""

    def look() -> None:
        with begin(read_only=True):
            pass  # whoever asks is known

    await run_in_threadpool(look)
    return refusal(
        Invalid(
            "No embeddings are served: the models here were trained to continue text, and a vector "
            "taken from inside one has no tested meaning as a measure of similarity.",
            reason="embeddings_not_supported",
            next_step="Ask /v1/completions for text or /v1/score for log-probabilities.",
        )
    )


@router.get("/models")
async def list_models(request: Request, begin: Begin) -> dict[str, Any]:
    """List the models that the caller may ask."""
    contexts = request.app.state.contexts

    def look() -> list[ModelRow]:
        with begin(read_only=True) as work:
            return inference.list_models(work, contexts)

    rows = await run_in_threadpool(look)
    states = await _states(request.app.state.engine)
    return {"object": "list", "data": [model_document(row, *_of(states, row)) for row in rows]}


@router.get("/models/{model:path}")
async def retrieve_model(request: Request, begin: Begin, model: str) -> dict[str, Any]:
    """Show one model; its id may hold slashes, plain or percent-encoded."""
    contexts = request.app.state.contexts

    def look() -> ModelRow:
        with begin(read_only=True) as work:
            return inference.find_model(work, contexts, model)

    row = await run_in_threadpool(look)
    return model_document(row, *_of(await _states(request.app.state.engine), row))


async def _states(engine: Engine) -> dict[str, tuple[str, float | None]] | None:
    """Return how ready each model is, by revision, or None when the engine cannot be asked."""
    try:
        state = await engine.state()
    except DomainError:
        return None
    return {model.commit: (model.state, model.progress) for model in state.models}


def _of(
    states: dict[str, tuple[str, float | None]] | None, row: ModelRow
) -> tuple[str, float | None]:
    if states is None:
        return "away", None
    return states.get(row.commit, ("cold", None))  # loaded when it is first asked


ALLOWED = {
    "completions": "POST",
    "chat/completions": "POST",
    "score": "POST",
    "embeddings": "POST",
    "models": "GET",
}


@router.api_route(
    "/{rest:path}",
    methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
    include_in_schema=False,
    response_model=None,
)
async def nothing_here(rest: str) -> Response:
    """Answer every other address below ``/v1`` in the shape its clients understand."""
    allowed = ALLOWED.get(rest, "GET" if rest.startswith("models/") else None)
    if allowed is not None:
        body = error_body(405, f"/v1/{rest} takes {allowed}.", code="method_not_allowed")
        return JSONResponse(body, 405, headers={"Allow": allowed, "x-should-retry": "false"})
    body = error_body(404, f"There is nothing at /v1/{rest[:200]}.", code="unknown_url")
    return JSONResponse(body, 404, headers={"x-should-retry": "false"})
