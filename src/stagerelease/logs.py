"""Structured logs on stderr. Tokens never reach them: what looks like one is masked."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_TOKEN = re.compile(r"\b(sr[psd]_)[0-9A-Za-z]{36}\b")


def mask(text: str) -> str:
    """Return ``text`` with every token in it cut to its prefix."""
    return _TOKEN.sub(r"\1…", text)


def _mask_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: mask(value) if isinstance(value, str) else value for key, value in event.items()}


class _MaskFormatter(logging.Formatter):
    """Masks the whole of what is written: the message, and the traceback beneath it."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def configure_logs(level: str) -> None:
    """Send structlog and the standard library's logs to stderr, JSON unless a person watches."""
    number = getattr(logging, level.upper())
    render: Any = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _mask_event,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_MaskFormatter("%(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))
