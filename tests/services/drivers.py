"""Two ways to do the same things to release control: its services, and its JSON face.

The state machine drives either and must not be able to tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import httpx
from make_release import Staff

from stagerelease.cli.box import plain
from stagerelease.entitlements import service as entitlements
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Blocked, DomainError
from stagerelease.releases import service


@dataclass(frozen=True)
class Answer:
    """What came back: a row as plain values, or the public code of a refusal with its blockers."""

    row: Any = None
    code: str | None = None
    blockers: frozenset[str] = frozenset()

    @property
    def ok(self) -> bool:
        return self.code is None

    def __getitem__(self, key: str) -> Any:
        assert self.ok, self
        return self.row[key]


class Driver(Protocol):
    """Does one act as one person."""

    def act(self, who: str, act: str, number: int | str | None = None, **body: Any) -> Answer:
        """Do ``act`` on what ``number`` names, as ``who``."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class ServiceDriver:
    """Calls the use cases, one Work each."""

    def __init__(self, staff: Staff) -> None:
        self.staff = staff

    def act(self, who: str, act: str, number: int | str | None = None, **body: Any) -> Answer:
        # Withdrawing is the one act that reaches up to the grants, so a floor above offers it.
        function = entitlements.withdraw if act == "withdraw_track" else getattr(service, act)
        args = () if number is None else (number,)
        try:
            with self.staff.begin(who) as work:
                row = function(work, *args, **body)
        except Blocked as error:
            return Answer(code=error.code, blockers=frozenset(b.code for b in error.blockers))
        except DomainError as error:
            return Answer(code=error.code)
        return Answer(row=plain(row))

    def close(self) -> None:
        pass


PATHS = {
    "open_promotion": "/promotions",
    "edit_promotion": "/promotions/{}/edit",
    "resubmit": "/promotions/{}/resubmit",
    "cancel": "/promotions/{}/cancel",
    "approve": "/promotions/{}/approve",
    "reject": "/promotions/{}/reject",
    "request_changes": "/promotions/{}/request-changes",
    "judge": "/promotions/{}/judge",
    "apply": "/promotions/{}/apply",
    "lay_hold": "/holds",
    "lift_hold": "/holds/{}/lift",
    "withdraw_track": "/tracks/{}/withdraw",
}


class HttpDriver:
    """Sends the same as JSON to a live server."""

    def __init__(self, base_url: str, tokens: dict[str, str]) -> None:
        self.tokens = tokens
        self.client = httpx.Client(base_url=base_url, timeout=30)

    def act(self, who: str, act: str, number: int | str | None = None, **body: Any) -> Answer:
        reply = self.client.post(
            "/api/v1" + PATHS[act].format(number),
            json={k: iso(v) if isinstance(v, datetime) else v for k, v in body.items()} or None,
            headers={"Authorization": f"Bearer {self.tokens[who]}"},
        )
        answer = reply.json()
        if reply.is_success:
            return Answer(row=answer)
        blockers = frozenset(b["code"] for b in answer.get("blockers", ()))
        return Answer(code=answer["code"], blockers=blockers)

    def close(self) -> None:
        self.client.close()
