"""Keeps web, worker and inference running: together they start, together they stop.

A process that dies is started again after a wait that doubles up to ``MOST_WAIT`` and is forgotten
once it has stayed up for ``STEADY``. When the supervisor itself is killed, the kernel ends the
children (``PR_SET_PDEATHSIG``), so nothing is left serving unwatched.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)

FIRST_WAIT, MOST_WAIT, STEADY, GRACE = 0.5, 30.0, 20.0, 25.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


# Loaded here, because between fork and exec nothing may be loaded while other threads run.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class Child:
    """One supervised process: how to start it, and how it has fared."""

    name: str
    argv: Sequence[str]
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    wait: float = FIRST_WAIT
    due_at: float = 0.0
    restarts: int = field(default=0)

    def start(self) -> None:
        """Start the process."""
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            list(self.argv), env=dict(self.environ), preexec_fn=_die_with_parent
        )
        log.info("process started", process=self.name, pid=self.process.pid)

    def tend(self) -> None:
        """Note a death and start again when its wait is over."""
        now = time.monotonic()
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                if now - self.started_at > STEADY:
                    self.wait = FIRST_WAIT
                return
            log.warning(
                "process ended; it will be started again",
                process=self.name,
                exit_code=code,
                wait_seconds=self.wait,
            )
            self.process = None
            self.due_at = now + self.wait
            self.wait = min(self.wait * 2, MOST_WAIT)
        if now >= self.due_at:
            self.restarts += 1
            self.start()


class Supervisor:
    """Runs children until told to stop."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = list(children)
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask for an orderly end."""
        self._stop.set()

    def run(self) -> None:
        """Start every child, tend them, and end them in order when stopped by a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        for child in self.children:
            child.start()
        while not self._stop.wait(0.2):
            for child in self.children:
                child.tend()
        self._end()

    def _end(self) -> None:
        log.info("stopping")
        running = [c.process for c in self.children if c.process is not None]
        for process in running:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.info("stopped")


def children_of(settings_environ: Mapping[str, str], serve_args: Sequence[str]) -> list[Child]:
    """Return the children of one installation, each the same command with another role."""
    environ = {**os.environ, **settings_environ, "PYTHONUNBUFFERED": "1"}
    me = [sys.executable, "-m", "stagerelease"]
    return [
        Child("web", [*me, "serve", *serve_args], environ),
        Child("worker", [*me, "work"], environ),
        Child("inference", [*me, "infer"], environ),
    ]
