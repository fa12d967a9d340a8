"""Sessions of browsers, kept on the server: a cookie names one, and it can be ended at once.

The cookie is 32 random bytes of which only the SHA-256 is stored. A session ends 12 hours after it
was last seen, 7 days after it began, at sign-out, and when its account is disabled.

An act that counts asks for more than a session: a proof by its person's strongest way that is not
older than ``ways.FRESH`` (``require_proof``). Signing in by that way is such a proof.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update

from stagerelease.db.work import Work
from stagerelease.identity import queries
from stagerelease.identity.rules import Role
from stagerelease.identity.tables import Person, SignInSession
from stagerelease.identity.ways import FRESH, SENTENCES, way_asked
from stagerelease.kernel.actor import Actor, ActorKind
from stagerelease.kernel.errors import Forbidden, NotFound, ProofNeeded, Unauthenticated
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger

IDLE = timedelta(hours=12)
ABSOLUTE = timedelta(days=7)
SEEN_EVERY = timedelta(minutes=10)
"""``last_seen_at`` is written at most this often: reads must stay reads."""
KEPT = timedelta(days=30)
"""How long the row of a session that is over is kept."""
_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}\Z")
NEXT_STEP = "Sign in again."


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as its person sees it."""

    id: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    step_up_at: datetime | None
    method: str


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()


def open_session(
    work: Work,
    person_id: str,
    *,
    replaces: str | None = None,
    method: str = "link",
    proved: bool = False,
) -> str:
    """Sign a person in and return the cookie, which is not shown again.

    The caller has proved who they are. The id is always new, and the session that the browser had
    before (``replaces``, a cookie) ends: an id that somebody planted is worth nothing. ``method``
    says how they proved it, and stays with the session; ``proved`` makes it good for acts that
    count even where they have a stronger way.

    Raises:
        Forbidden: the account is disabled or is not a human's.
    """
    person = queries.load_person(work, person_id)
    if person.disabled_at is not None or person.kind != "human":
        raise Forbidden(
            "Nobody can sign in to this account.",
            reason="account.disabled",
            next_step="Write to the people who run this service.",
        )
    if replaces is not None:
        close_session(work, replaces)
    work.session.execute(delete(SignInSession).where(SignInSession.expires_at < work.now - KEPT))
    cookie = secrets.token_urlsafe(32)
    session = SignInSession(
        id=new_id("ses"),
        sha256=_digest(cookie),
        person_id=person.id,
        method=method,
        created_at=work.now,
        last_seen_at=work.now,
        expires_at=work.now + ABSOLUTE,
        step_up_at=work.now if proved or method == way_asked(work, person.id) else None,
    )
    work.session.add(session)
    ledger.append(
        work,
        type="session.opened",
        subject=f"session:{session.id}",
        detail={"person": person.id, "method": method},
    )
    return cookie


def authenticate_session(work: Work, cookie: str) -> Actor:
    """Return who is signed in by this cookie now, with the roles they hold now.

    Raises:
        Unauthenticated: the cookie is malformed or unknown, or its session is over; ``reason``
            says which.
    """
    row = _find(work, cookie)
    if row is None:
        raise Unauthenticated("You are not signed in.", reason="session.unknown")
    return _checked(work, *row)


def actor_of_session(work: Work, wanted: str) -> Actor:
    """Return who is signed in by the session of that id now, for asking again without its cookie.

    Raises:
        Unauthenticated: as ``authenticate_session``.
    """
    found = work.session.execute(
        select(SignInSession, Person.disabled_at)
        .join(Person, Person.id == SignInSession.person_id)
        .where(SignInSession.id == wanted)
    ).one_or_none()
    if found is None:
        raise Unauthenticated("You are not signed in.", reason="session.unknown")
    return _checked(work, found[0], found[1])


def _checked(work: Work, session: SignInSession, disabled_at: datetime | None) -> Actor:
    over = _over(work.now, session)
    if over is None and disabled_at is not None:
        over = ("account.disabled", "Your account is disabled.")
    if over is not None:
        reason, sentence = over
        raise Unauthenticated(sentence, reason=reason, next_step=NEXT_STEP)
    return _actor(work, session)


def _over(now: datetime, session: SignInSession) -> tuple[str, str] | None:
    """Return the reason and sentence of a session that has ended, or None."""
    if session.revoked_at is not None:
        return ("session.ended", "You signed out.")
    if session.expires_at <= now:
        return ("session.expired", "You signed in more than 7 days ago.")
    if session.last_seen_at + IDLE <= now:
        return ("session.idle", "You were away for more than 12 hours.")
    return None


def _find(work: Work, cookie: str) -> tuple[SignInSession, datetime | None] | None:
    if not _COOKIE.match(cookie):
        return None
    found = work.session.execute(
        select(SignInSession, Person.disabled_at)
        .join(Person, Person.id == SignInSession.person_id)
        .where(SignInSession.sha256 == _digest(cookie))
    ).one_or_none()
    return (found[0], found[1]) if found else None


def _actor(work: Work, session: SignInSession) -> Actor:
    person = queries.load_person(work, session.person_id)
    roles = queries.roles_now(work, person.id)
    rosters = queries.memberships_now(work, person.id)
    ends = [e for e in roles.values() if e is not None]
    return Actor(
        kind=ActorKind.PERSON,
        id=person.id,
        name=person.handle,
        roles=frozenset(roles) | {role for _, role, _ in rosters},
        organisations=frozenset(organisation for organisation, _, _ in rosters),
        administers=frozenset(o for o, role, _ in rosters if role == Role.PARTNER_ADMIN),
        session_id=session.id,
        scopes=None,
        until=min([session.expires_at, *ends]),
        membership_ends=tuple((o, end) for o, _, end in rosters),
    )


def seen_due(work: Work, cookie: str) -> bool:
    """Tell whether ``touch_session`` has something to write."""
    row = _find(work, cookie)
    return (
        row is not None
        and _over(work.now, row[0]) is None
        and row[0].last_seen_at + SEEN_EVERY <= work.now
    )


def touch_session(work: Work, cookie: str) -> None:
    """Note that a session is in use, so that it does not end of idleness."""
    row = _find(work, cookie)
    if row is not None and _over(work.now, row[0]) is None:
        row[0].last_seen_at = work.now


def require_proof(work: Work, cookie: str, *, spared: frozenset[str] = frozenset()) -> None:
    """Return only if the session's person has just shown again who they are.

    ``spared`` names the methods of sign-in that are never asked: a demonstration's.

    Raises:
        Unauthenticated: there is no such session.
        ProofNeeded: their proof is older than ``ways.FRESH``, or was by a weaker way.
    """
    row = _find(work, cookie)
    if row is None:
        raise Unauthenticated("You are not signed in.", reason="session.unknown")
    session, _ = row
    if session.method in spared:
        return
    if session.step_up_at is None or session.step_up_at + FRESH <= work.now:
        way = way_asked(work, session.person_id)
        raise ProofNeeded(
            "What you are about to do counts, so show first that it is still you. "
            + SENTENCES[way],
            way=way,
        )


def prove_session(work: Work, cookie: str, *, method: str) -> None:
    """Note that the session's person has shown again who they are, by their strongest way.

    The caller has checked the proof, which was by ``method``.

    Raises:
        Unauthenticated: the session is over.
        Forbidden: they have a stronger way, which is the one that counts.
    """
    row = _find(work, cookie)
    if row is None or _over(work.now, row[0]) is not None:
        raise Unauthenticated("You are not signed in any more.", reason="session.ended")
    session, _ = row
    asked = way_asked(work, session.person_id)
    if method != asked:
        raise Forbidden(
            f"A {asked} counts for you, not a {method}.",
            reason="proof.weaker",
            next_step=SENTENCES[asked],
        )
    session.step_up_at = work.now
    ledger.append(
        work,
        type="session.proved",
        subject=f"session:{session.id}",
        detail={"person": session.person_id, "method": method},
    )


def session_id(work: Work, cookie: str) -> str | None:
    """Return the id of the session of a cookie, which is no secret, or None."""
    row = _find(work, cookie)
    return row[0].id if row else None


def close_my_session(work: Work, wanted: str) -> None:
    """End one of the caller's own sessions by its id.

    Raises:
        NotFound: they have no such session open.
    """
    session = work.session.execute(
        select(SignInSession)
        .where(SignInSession.id == wanted, SignInSession.person_id == work.actor.id)
        .with_for_update()
    ).scalar_one_or_none()
    if session is None:
        raise NotFound("You have no such session.", reason="session.unknown")
    if session.revoked_at is None:
        _close(work, [session])


def close_other_sessions(work: Work, cookie: str) -> int:
    """End every session of the caller but that of ``cookie``, and return how many there were."""
    others = list(
        work.session.scalars(
            select(SignInSession)
            .where(
                SignInSession.person_id == work.actor.id,
                SignInSession.sha256 != _digest(cookie),
                SignInSession.revoked_at.is_(None),
                SignInSession.expires_at > work.now,
            )
            .with_for_update()
        )
    )
    _close(work, others)
    return len(others)


def close_session(work: Work, cookie: str) -> None:
    """End the session of a cookie now; one that is over already changes nothing."""
    row = _find(work, cookie)
    if row is None or row[0].revoked_at is not None:
        return
    _close(work, [row[0]])


def close_all_sessions(work: Work) -> int:
    """End every session of the caller, this one too, and return how many there were."""
    sessions = list(
        work.session.scalars(
            select(SignInSession)
            .where(
                SignInSession.person_id == work.actor.id,
                SignInSession.revoked_at.is_(None),
                SignInSession.expires_at > work.now,
            )
            .with_for_update()
        )
    )
    _close(work, sessions)
    return len(sessions)


def _close(work: Work, sessions: list[SignInSession]) -> None:
    ids = [session.id for session in sessions]
    work.session.execute(
        update(SignInSession).where(SignInSession.id.in_(ids)).values(revoked_at=work.now)
    )
    for session in sessions:
        ledger.append(
            work,
            type="session.closed",
            subject=f"session:{session.id}",
            detail={"person": session.person_id},
        )


def list_sessions(work: Work) -> list[SessionRow]:
    """Return the caller's sessions that are open now, newest first."""
    rows = work.session.scalars(
        select(SignInSession)
        .where(
            SignInSession.person_id == work.actor.id,
            SignInSession.revoked_at.is_(None),
            SignInSession.expires_at > work.now,
            SignInSession.last_seen_at > work.now - IDLE,
        )
        .order_by(SignInSession.created_at.desc(), SignInSession.id)
    )
    return [
        SessionRow(s.id, s.created_at, s.last_seen_at, s.expires_at, s.step_up_at, s.method)
        for s in rows
    ]
