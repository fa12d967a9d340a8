"""The playground: a text box that a model continues, as it is written or whole.

It asks with the session of whoever uses it, under the same grants, quotas and holds as a token
does. Without scripts the form is sent and the finished text comes back.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from stagerelease.engine.ports import Sampling
from stagerelease.http.pages.begin import BeginPage, BeginVisitor, BeginWork
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent, Typed
from stagerelease.http.pages.frame import by_field, page
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.problems import status_of
from stagerelease.inference import service as inference
from stagerelease.inference.service import ModelRow
from stagerelease.kernel.errors import DomainError, FieldError, Invalid, Unauthenticated

router = APIRouter(
    include_in_schema=False, dependencies=[Depends(speak_page), Depends(refuse_forgery)]
)
scripted = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_forgery)])
"""What the script of the page calls: refusals are problem documents."""
ALTERNATIVES, SHORT = 3, 24
"""How many short continuations are offered to choose from, and their tokens."""
FIRST = {"length": "100", "temperature": "0.8", "top_k": "40", "top_p": "1", "seed": ""}
LONGEST = 20_000
KEPT = "your text is kept"
SEEDS = 2**31
BOUNDS = {
    "length": (1, 500, "Give a whole number of tokens from 1 to 500."),
    "temperature": (0, 2, "Give a number from 0 (the likeliest word) to 2."),
    "top_k": (0, 50_000, "Give a whole number; 0 leaves every token in."),
    "top_p": (0.01, 1, "Give a number above 0, up to 1."),
    "seed": (0, SEEDS - 1, "Give a whole number below 2,147,483,648, or leave it empty."),
}
WHOLE = frozenset({"length", "top_k", "seed"})


class Continues(Protocol):
    """What the application hands this page to have texts continued with."""

    async def streamed(self, request: Request, begin: BeginWork, **asked: Any) -> Response:
        """Return an answer that sends the text as it comes."""
        ...

    async def whole(self, request: Request, begin: BeginWork, **asked: Any) -> list[str]:
        """Return the texts once they are complete."""
        ...


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked for, read from the form."""

    model: str
    prompt: str
    n: int
    max_tokens: int
    sampling: Sampling

    def asked(self) -> dict[str, Any]:
        """Return it as ``Continues`` takes it."""
        return {
            "model": self.model,
            "prompt": self.prompt,
            "n": self.n,
            "max_tokens": self.max_tokens,
            "sampling": self.sampling,
        }


def _number(sent: Typed, key: str, wrong: list[FieldError]) -> float:
    low, high, sentence = BOUNDS[key]
    text = sent.get(key) or FIRST[key]
    if key == "seed" and not text:
        return secrets.randbelow(SEEDS)
    try:
        value = int(text) if key in WHOLE else float(text)
    except ValueError:
        value = -1
    if not low <= value <= high:  # false for what is no number, and for any too large for a float
        wrong.append(FieldError(key, sentence))
        return low
    return value


def _read(sent: Typed) -> Asking:
    """Return what a form asks for; a seed that is not given is drawn, so that it can be shown.

    Raises:
        Invalid: with every field that is wrong.
    """
    wrong: list[FieldError] = []
    prompt, three = sent.raw("prompt"), sent.get("do") == "three"
    if not prompt.strip():
        wrong.append(FieldError("prompt", "Write the beginning of a text."))
    elif len(prompt) > LONGEST:
        wrong.append(FieldError("prompt", f"A text has at most {LONGEST:,} characters here."))
    if not sent.get("model"):
        wrong.append(FieldError("model", "Choose a model."))
    length = int(_number(sent, "length", wrong))
    sampling = Sampling(
        temperature=_number(sent, "temperature", wrong),
        top_k=int(_number(sent, "top_k", wrong)),
        top_p=_number(sent, "top_p", wrong),
        seed=int(_number(sent, "seed", wrong)),
    )
    if wrong:
        raise Invalid("This cannot be asked yet.", reason="playground", fields=wrong)
    n, tokens = (ALTERNATIVES, min(length, SHORT)) if three else (1, length)
    return Asking(sent.get("model"), prompt, n, tokens, sampling)


def _models(request: Request, begin: BeginWork) -> list[ModelRow]:
    with begin(read_only=True) as work:
        if not work.actor.known:
            return []
        return inference.list_models(work, request.app.state.contexts)


def _show(
    request: Request,
    begin: BeginWork,
    values: dict[str, str],
    *,
    texts: Sequence[str] = (),
    seed: int | None = None,
    refusal: DomainError | None = None,
) -> Response:
    models = _models(request, begin)
    told = getattr(request.state, "permit_headers", {})
    answer = page(
        request,
        "playground.html",
        status=status_of(refusal) if refusal else 200,
        errors=by_field(refusal.fields) if refusal else {},
        refusal=refusal,
        models=models,
        choices=[(m.repo_id, _named(m)) for m in models],
        kept_days=_kept_days(request, models),
        was_kept=told.get("X-Stagerelease-Prompt-Logging") == "on",
        values=values,
        texts=texts,
        seed=seed,
        longest=LONGEST,
    )
    answer.headers.update(told)
    return answer


def _named(model: ModelRow) -> str:
    """Return a model as it is offered: where it is, and whether what one writes is kept there."""
    said = [*([model.stage] if model.stage else []), *([KEPT] if model.prompt_logging else [])]
    return f"{model.repo_id} ({', '.join(said)})" if said else model.repo_id


def _kept_days(request: Request, models: Sequence[ModelRow]) -> int | None:
    """Return for how many days texts are kept, if any of the models keeps them."""
    keeps = any(model.prompt_logging for model in models)
    days: int = request.app.state.settings.inference_prompt_days
    return days if keeps else None


@router.get("/playground")
def playground(request: Request, begin: BeginVisitor, model: str = "") -> Response:
    """Show the box, with the models that the visitor may ask."""
    return _show(request, begin, {"prompt": "", "model": model, **FIRST})


@router.post("/playground")
async def write(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Continue a text and show it when it is complete; or take one of three continuations over."""
    values = {**FIRST, **sent.values("prompt", "model", *FIRST)}
    if sent.get("do") == "take":
        values["prompt"] = sent.raw("prompt") + sent.raw("text")
        return await run_in_threadpool(_show, request, begin, values)
    continuing: Continues = request.app.state.continuing
    try:
        asking = _read(sent)
        texts = await continuing.whole(request, begin, **asking.asked())
    except Unauthenticated:
        raise
    except DomainError as error:
        return await run_in_threadpool(_show, request, begin, values, refusal=error)
    return await run_in_threadpool(
        _show, request, begin, values, texts=texts, seed=asking.sampling.seed
    )


@scripted.post("/playground/stream")
async def stream(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Continue a text, sent as it is written (server-sent events, as below ``/v1``)."""
    # Who asks comes before what they ask.
    await run_in_threadpool(_look, begin)
    asking = _read(sent)
    continuing: Continues = request.app.state.continuing
    return await continuing.streamed(request, begin, **asking.asked())


def _look(begin: BeginWork) -> None:
    with begin(read_only=True):
        pass
