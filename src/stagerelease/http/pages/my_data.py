"""Everything that is kept about one person, for that person, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stagerelease.access import service as access
from stagerelease.db.work import Work
from stagerelease.evidence import service as evidence
from stagerelease.identity import passkeys, passwords, sessions
from stagerelease.identity import queries as people
from stagerelease.kernel.clock import iso
from stagerelease.notices import service as notices
from stagerelease.partners import service as partners

MOST = 1_000


def plainly(value: Any) -> Any:
    """Return rows and instants as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plainly(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {str(key): plainly(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plainly(one) for one in value)
    if isinstance(value, list | tuple):
        return [plainly(one) for one in value]
    return value


def what_is_kept(work: Work) -> dict[str, Any]:
    """Return what is kept about the caller: never a secret, and never what is about others."""
    me = people.load_person(work, work.actor.id)
    grants = [g for g in partners.list_grants(work, limit=MOST) if g.person_id == me.id]
    written = evidence.list_evidence(work, limit=MOST)
    return {
        "made_at": iso(work.now),
        "account": plainly(me),
        "roles": plainly(people.roles_now(work, me.id)),
        "rosters": [
            {"organisation": organisation, "role": role, "ends_at": plainly(end)}
            for organisation, role, end in people.memberships_now(work, me.id)
        ],
        "requests": [
            plainly(r) for r in access.list_requests(work, limit=MOST) if r.applicant_id == me.id
        ],
        "signatures": [plainly(s) for s in partners.list_signatures(work) if s.person_id == me.id],
        "grants": plainly(grants),
        "deliveries": {
            g.id: plainly([d for d in partners.list_deliveries(work, g.id) if d.person_id == me.id])
            for g in grants
        },
        "evidence": [plainly(e) for e in written if e.created_by == me.id],
        "tokens": plainly(people.list_tokens(work, person_id=me.id)),
        "passkeys": plainly(passkeys.list_passkeys(work)),
        "has_password": passwords.has_password(work),
        "sessions": plainly(sessions.list_sessions(work)),
        "notices": plainly(notices.my_notices(work, limit=MOST)),
    }
