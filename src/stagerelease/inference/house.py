"""What holds for everybody who asks models, as the operator has set it."""

from __future__ import annotations

from datetime import timedelta

from stagerelease.inference.admitting import House
from stagerelease.inference.rules import Limits
from stagerelease.settings import Settings


def house_of(settings: Settings) -> House:
    """Return limits and times out of the settings."""
    return House(
        limits=Limits(
            requests_per_minute=settings.inference_requests_per_minute,
            tokens_per_minute=settings.inference_tokens_per_minute,
            tokens_per_day=settings.inference_tokens_per_day,
            sequences=settings.inference_sequences,
            max_tokens=settings.inference_max_tokens,
        ),
        longest=timedelta(seconds=settings.inference_longest),
        prompts_kept_for=timedelta(days=settings.inference_prompt_days),
    )
