"""The mail that proves an address: made as a row, so that no secret lies in a job."""

from __future__ import annotations

from stagerelease.access.rules import CONFIRM_WITHIN
from stagerelease.db.work import Work
from stagerelease.identity import links
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso

PURPOSE = "access.confirm"
PATH = "/access/confirm"


def mail_confirmation(work: Work, draft_id: str, address: str, *, repo_id: str) -> None:
    """Have a link mailed to ``address`` that confirms it and sends the draft."""
    link_id = links.make_link(
        work,
        purpose=PURPOSE,
        subject=f"access_draft:{draft_id}",
        person_id=None,
        address=address,
        lifetime=CONFIRM_WITHIN,
    )
    emit(
        work,
        "request.confirm_address",
        subject=f"access_draft:{draft_id}",
        facts={
            "id": draft_id,
            "link": link_id,
            "link_path": PATH,
            "repo_id": repo_id,
            "title": repo_id,
            "until": iso(work.now + CONFIRM_WITHIN),
        },
    )
