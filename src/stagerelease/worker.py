"""The background process: sequences the log, signs checkpoints, runs jobs and sweeps ends.

Everything here may run in several workers at once and may be killed at any instant.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from stagerelease.access import service as access
from stagerelease.bootstrap import Box
from stagerelease.downloads import days, edge
from stagerelease.identity import entering
from stagerelease.identity import sweeping as identity
from stagerelease.inference import service as inference
from stagerelease.jobs.runner import GivenUp, Handler, run_one
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.errors import DomainError
from stagerelease.ledger import service as ledger
from stagerelease.notices import jobs as notices
from stagerelease.partners import service as partners
from stagerelease.releases import service as releases

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Periodic:
    """Something done every ``every`` seconds."""

    name: str
    every: float
    run: Callable[[Box], None]
    due: float = 0.0


def _sequence(box: Box) -> None:
    while True:
        with box.works.begin(SYSTEM, read_only=True) as work:
            if not ledger.has_pending(work):
                return  # an idle log takes no write lock
        with box.works.begin(SYSTEM, quiet=True) as work:
            ledger.sequence_pending(work)


def _checkpoint(box: Box) -> None:
    with box.works.begin(SYSTEM, read_only=True) as work:
        if not ledger.checkpoint_due(work):
            return
    with box.works.begin(SYSTEM, quiet=True) as work:
        ledger.sign_checkpoint(work, box.signer)


def _promotions(box: Box) -> None:
    with box.works.begin(SYSTEM, read_only=True) as work:
        if not releases.promotions_due(work) and not releases.proposals_due(work):
            return  # a writing Work would make every process ask again for nothing
    with box.works.begin(SYSTEM) as work:
        releases.apply_due(work)
        releases.expire_stale(work)
        releases.expire_proposals(work)


def _sweep(box: Box) -> None:
    with box.works.begin(SYSTEM, read_only=True) as work:
        if not partners.sweep_due(work):
            return
    with box.works.begin(SYSTEM) as work:
        partners.sweep_expired(work)


def _ends(box: Box) -> None:
    with box.works.begin(SYSTEM, read_only=True) as work:
        tokens, warnings = identity.ends_due(work), partners.warnings_due(work)
    if not tokens and not warnings:
        return
    with box.works.begin(SYSTEM, quiet=True) as work:  # says what the clock has done already
        identity.announce_ends(work)
        partners.warn_of_ends(work)


def _access(box: Box) -> None:
    with box.works.begin(SYSTEM, read_only=True) as work:
        if not access.sweep_due(work):
            return
    with box.works.begin(SYSTEM, quiet=True) as work:  # a request that is over had given no access
        access.sweep_over(work)


def _inference(box: Box) -> None:
    with box.works.begin(SYSTEM, read_only=True) as work:
        if not inference.lost_due(work) and not inference.prompts_due(work):
            return
    with box.works.begin(SYSTEM, quiet=True) as work:  # use and its traces; no access changes
        inference.settle_lost(work)
        inference.erase_prompts(work)


def _read_edge_log(box: Box) -> None:
    if box.settings.edge_log is not None:
        edge.read_log(box.works, box.settings.edge_log)


def _count_downloads(box: Box) -> None:
    days.count_days(box.works)


def _digests(box: Box) -> None:
    notices.send_digests(box.works, notices.server_of(box.settings, box.link_key))


def periodic_table() -> list[Periodic]:
    """Return what the worker does by the clock."""
    return [
        Periodic("ledger.sequence", 0.25, _sequence),
        Periodic("ledger.checkpoint", 5.0, _checkpoint),
        Periodic("releases.promotions", 5.0, _promotions),
        Periodic("sweep", 15.0, _sweep),
        Periodic("ends", 30.0, _ends),
        Periodic("digests", 60.0, _digests),
        Periodic("access", 30.0, _access),
        Periodic("inference", 30.0, _inference),
        Periodic("downloads.edge_log", 1.0, _read_edge_log),
        Periodic("downloads.days", 15.0, _count_downloads),
    ]


def handlers_of(box: Box) -> dict[str, Handler]:
    """Return every handler, wired to what it needs."""
    return HANDLERS | notices.handlers(box.settings, box.link_key)


HANDLERS: dict[str, Handler] = {
    entering.JOB: entering.mail_sign_in,
    "releases.announce": releases.announce,
}
GIVEN_UP: dict[str, GivenUp] = {**notices.GIVEN_UP}
"""What else is noted, by kind, when a job's last attempt failed."""


def run(box: Box, stop: threading.Event) -> None:
    """Work until ``stop`` is set."""
    me = f"{socket.gethostname()}:{os.getpid()}"
    table = periodic_table()
    handlers = handlers_of(box)
    log.info("worker started", worker=me)
    while not stop.is_set():
        busy = False
        for task in table:
            if time.monotonic() >= task.due:
                task.due = time.monotonic() + task.every
                _attempt(task.name, lambda task=task: task.run(box))  # type: ignore[misc]
        try:
            busy = run_one(box.works, handlers, me, given_up=GIVEN_UP)
        except DomainError as error:
            log.warning("jobs could not be claimed", reason=error.reason)
        if not busy:
            stop.wait(0.1)
    log.info("worker stopped", worker=me)


def _attempt(name: str, task: Callable[[], None]) -> None:
    try:
        task()
    except DomainError as error:
        log.warning("periodic task failed; it will be tried again", task=name, reason=error.reason)
    except Exception:
        log.exception("periodic task broke; it will be tried again", task=name)
