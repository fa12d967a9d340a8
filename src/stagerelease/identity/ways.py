"""How a person shows who they are, and which of their ways an act that counts asks for."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from sqlalchemy import exists, select

from stagerelease.db.work import Work
from stagerelease.identity.tables import Passkey, Password


class Way(StrEnum):
    """A proof of who one is, the strongest first."""

    PASSKEY = "passkey"
    PASSWORD = "password"  # noqa: S105 (the name of a way)
    LINK = "link"


FRESH = timedelta(minutes=5)
"""How old a proof may be for an act that counts."""
SENTENCES = {
    Way.PASSKEY: "Use your passkey once more.",
    Way.PASSWORD: "Type your password once more.",
    Way.LINK: "Have a link mailed to you and open it in this browser.",
}


def way_asked(work: Work, person_id: str) -> Way:
    """Return the strongest way that a person has; everybody has a link by mail."""
    has_passkey = select(
        exists().where(
            Passkey.person_id == person_id,
            Passkey.removed_at.is_(None),
            Passkey.suspended_at.is_(None),
        )
    )
    if work.session.execute(has_passkey).scalar_one():
        return Way.PASSKEY
    has_password = select(exists().where(Password.person_id == person_id))
    return Way.PASSWORD if work.session.execute(has_password).scalar_one() else Way.LINK
