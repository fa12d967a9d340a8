"""Continuing one text, for the page that does so: the same admission, engine and record as ``/v1``.

What an answer says in its headers is left in ``request.state.permit_headers`` for the page.

Faces do not know each other; the application hands this to the page as ``app.state.continuing``.
"""

from __future__ import annotations

from contextlib import aclosing

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from stagerelease.engine.ports import Engine, Job, Piece, Sampling
from stagerelease.http.begin import BeginWork
from stagerelease.http.openai.running import Generation, while_permitted
from stagerelease.http.openai.wire import Completions, Usage, answer_headers, permit_headers
from stagerelease.inference import service as inference
from stagerelease.inference.rules import bound_of
from stagerelease.inference.service import Asked, Permit


class Continuing:
    """The two ways in which a page has a text continued: as it comes, and whole."""

    async def streamed(
        self,
        request: Request,
        begin: BeginWork,
        *,
        model: str,
        prompt: str,
        n: int,
        max_tokens: int,
        sampling: Sampling,
    ) -> Response:
        """Return an answer that sends events as ``POST /v1/completions`` does with ``stream``.

        Raises:
            DomainError: as ``inference.prepare``; what the engine refuses is in the answer.
        """
        permit, job = await self._permit(request, begin, model, prompt, n, max_tokens, sampling)
        return Generation(request, permit, job, Completions(permit, False), stream=True)

    async def whole(
        self,
        request: Request,
        begin: BeginWork,
        *,
        model: str,
        prompt: str,
        n: int,
        max_tokens: int,
        sampling: Sampling,
    ) -> list[str]:
        """Return the continuations once they are complete.

        Raises:
            DomainError: as ``inference.prepare`` and the engine.
        """
        permit, job = await self._permit(request, begin, model, prompt, n, max_tokens, sampling)
        engine: Engine = request.app.state.engine

        async def collect(usage: Usage) -> list[str]:
            texts = [""] * n
            async with aclosing(engine.generate(job)) as events:
                async for event in events:
                    usage.see(event)
                    if isinstance(event, Piece):
                        texts[event.index] += event.text
            return texts

        texts = await while_permitted(request, permit, collect)
        request.state.permit_headers = answer_headers(permit)
        return texts

    async def _permit(
        self,
        request: Request,
        begin: BeginWork,
        model: str,
        prompt: str,
        n: int,
        max_tokens: int,
        sampling: Sampling,
    ) -> tuple[Permit, Job]:
        state = request.app.state
        asked = Asked(
            model=model,
            kind="completion",
            bounds=[bound_of(prompt)],
            prompts=[prompt],
            n=n,
            max_tokens=max_tokens,
        )

        def admit() -> Permit:
            with begin(quiet=True) as work:
                house = inference.house_of(state.settings)
                return inference.prepare(work, state.contexts, asked, house)

        permit = await run_in_threadpool(admit)
        request.state.permit_headers = permit_headers(permit)
        job = Job(
            checkpoint=permit.checkpoint,
            prompts=(prompt,),
            n=n,
            max_tokens=max_tokens,
            sampling=sampling,
            cache_salt=permit.cache_salt,
        )
        return permit, job
