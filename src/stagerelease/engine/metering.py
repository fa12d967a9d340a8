"""What the inference process tells its operator, in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from stagerelease.engine.ports import Ended, EngineState, Event, Piece

FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
"""Bounds, in seconds, of the time to the first piece of text."""
GAP = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
"""Bounds, in seconds, of the time between two pieces of one request."""


class Metered:
    """One request under way: when its pieces came and how it ended."""

    def __init__(self, meter: Meter) -> None:
        self.outcome = "completed"
        self._meter = meter
        self._began = time.monotonic()
        self._last: float | None = None

    def see(self, event: Event) -> None:
        """Note an event."""
        if isinstance(event, Piece):
            if not event.text and not event.tokens:  # held back; nobody sees it
                return
            now = time.monotonic()
            if self._last is None:
                self._meter.first.observe(now - self._began)
            else:
                self._meter.gap.observe(now - self._last)
            self._last = now
        elif isinstance(event, Ended):
            self._meter.tokens.labels("generated").inc(event.completion_tokens)
            self._meter.tokens.labels("reused").inc(event.reused)
            self._meter.sequences.labels(event.reason).inc()
        else:
            self._meter.tokens.labels("prompt").inc(sum(event.prompt_tokens))


class Meter:
    """Counts what one server did. Holds a registry of its own: nothing here is process-wide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "stagerelease_inference_"
        self.requests = Counter(
            f"{name}requests", "Requests, by how they ended", ["outcome"], registry=self.registry
        )
        self.sequences = Counter(
            f"{name}sequences", "Sequences, by why they ended", ["reason"], registry=self.registry
        )
        self.tokens = Counter(
            f"{name}tokens",
            "Tokens: of prompts, of them found in store, generated, scored",
            ["kind"],
            registry=self.registry,
        )
        self.first = Histogram(
            f"{name}first_token_seconds",
            "From a request's arrival to its first text",
            buckets=FIRST,
            registry=self.registry,
        )
        self.gap = Histogram(
            f"{name}between_tokens_seconds",
            "Between two pieces of one request's text",
            buckets=GAP,
            registry=self.registry,
        )
        self._now = Gauge(
            f"{name}now", "What the engine does at this moment", ["what"], registry=self.registry
        )
        self._models = Gauge(
            f"{name}model_bytes",
            "Memory of each model at hand, by revision and state",
            ["commit", "state", "dtype"],
            registry=self.registry,
        )

    @contextmanager
    def request(self) -> Iterator[Metered]:
        """Meter one request from its arrival to its end."""
        metered = Metered(self)
        try:
            yield metered
        except BaseException:
            metered.outcome = "failed"
            raise
        finally:
            self.requests.labels(metered.outcome).inc()

    def scored(self, tokens: int) -> None:
        """Note that a text of ``tokens`` tokens was scored."""
        self.tokens.labels("scored").inc(tokens)

    def page(self, state: EngineState) -> tuple[bytes, str]:
        """Return the page of figures and its media type."""
        self._now.clear()
        self._models.clear()
        now = {"running": state.running, "waiting": state.waiting, "draining": state.draining}
        for what, value in {**now, **state.figures}.items():
            self._now.labels(what).set(value)
        for model in state.models:
            self._models.labels(model.commit, model.state, model.dtype).set(model.bytes)
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
