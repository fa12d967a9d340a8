"""What makes a job answerable at all, whatever computes it. Pure; every adapter asks it first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stagerelease.engine.ports import MOST_LOGPROBS, MOST_SEQUENCES, Job, Prompt, Sampling
from stagerelease.kernel.errors import FieldError, Invalid

MOST_OWN_STOPS = 16
"""Stop texts that a caller may name."""
MOST_STOPS = MOST_OWN_STOPS + 1
"""Stop texts of one job: a conversation adds one, where the next turn would begin."""
MOST_STOP = 512
"""Characters of one stop text."""
MOST_BIAS = 1024
"""Tokens that one job may bias."""


def require_sound(job: Job) -> None:
    """Refuse a job that no model could answer: figures that are none, or out of every range.

    Raises:
        Invalid: reason ``engine.parameter`` (says which), ``engine.empty`` or ``engine.token``.
    """
    if not job.prompts:
        raise Invalid("There is no prompt.", reason="engine.empty")
    for prompt in job.prompts:
        _require_prompt(prompt)
    _within("n", job.n, 1, MOST_SEQUENCES)
    if len(job.prompts) * job.n > MOST_SEQUENCES:
        raise _odd(f"{len(job.prompts)} prompts × n {job.n} are more than {MOST_SEQUENCES}.")
    _within("max_tokens", job.max_tokens, 0, math.inf)
    if job.logprobs is not None:
        _within("logprobs", job.logprobs, 0, MOST_LOGPROBS)
    _require_stops(job.stop)
    _require_sampling(job.sampling)


def require_texts(texts: Sequence[Prompt], top: int) -> None:
    """Refuse texts that no model could score; raises as ``require_sound`` does."""
    if not texts:
        raise Invalid("There is no text to score.", reason="engine.empty")
    if len(texts) > MOST_SEQUENCES:
        raise _odd(f"{len(texts)} texts are more than {MOST_SEQUENCES}.")
    for text in texts:
        _require_prompt(text)
    _within("top", top, 0, MOST_LOGPROBS)


def _require_prompt(prompt: Prompt) -> None:
    if not prompt:
        raise Invalid("A prompt of no tokens cannot be continued.", reason="engine.empty")
    if not isinstance(prompt, str) and any(token < 0 for token in prompt):
        raise Invalid("A token id below 0 is none.", reason="engine.token")


def _require_stops(stops: Sequence[str]) -> None:
    if len(stops) > MOST_STOPS:
        raise _odd(f"There are {len(stops)} stop texts; at most {MOST_STOPS} are looked for.")
    for stop in stops:
        if not 0 < len(stop) <= MOST_STOP:
            raise _odd(f"A stop text has 1 to {MOST_STOP} characters.")


def _require_sampling(sampling: Sampling) -> None:
    _within("temperature", sampling.temperature, 0, 100)
    _within("top_p", sampling.top_p, 0, 1)
    _within("top_k", sampling.top_k, 0, math.inf)
    _within("min_p", sampling.min_p, 0, 1)
    _within("repetition_penalty", sampling.repetition_penalty, 0.01, 100)
    _within("presence_penalty", sampling.presence_penalty, -100, 100)
    _within("frequency_penalty", sampling.frequency_penalty, -100, 100)
    if len(sampling.logit_bias) > MOST_BIAS:
        raise _odd(f"logit_bias names more than {MOST_BIAS} tokens.")
    for token, bias in sampling.logit_bias.items():
        if token < 0:
            below = "logit_bias names a token id below 0."
            raise Invalid(below, reason="engine.token", fields=[FieldError("logit_bias", below)])
        _within("logit_bias", bias, -1000, 1000)
    if sampling.seed is not None:
        _within("seed", sampling.seed, -(2**63), 2**64 - 1)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # false for NaN, whatever the ends
        ends = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        raise _odd(f"{name} is a number {ends}; {value!r} is not.")


def _odd(sentence: str) -> Invalid:
    return Invalid(sentence, reason="engine.parameter")
