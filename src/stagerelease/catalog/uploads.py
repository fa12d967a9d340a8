"""Uploads in the manner of Hub clients: announce, send large objects, commit small files.

Nothing becomes visible before ``commit``, which records a revision under the same checks as an
import. Objects are bound to the digest and size they were announced with; the signed address they
are sent to is worth nothing else, and only its SHA-256 is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import yaml
from sqlalchemy import select, update

from stagerelease.catalog import queries, service, stored
from stagerelease.catalog.queries import RefRow, VariantRow
from stagerelease.catalog.rules import (
    HEAD_BYTES,
    SKIPPED,
    check_content,
    check_name,
    check_path,
    check_repo_id,
    is_lfs,
)
from stagerelease.catalog.tables import UploadTicket
from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.actor import Actor, ActorKind
from stagerelease.kernel.digests import is_sha256
from stagerelease.kernel.errors import Corrupt, Forbidden, Invalid, NotFound, TooLarge
from stagerelease.kernel.ids import new_id, new_salt
from stagerelease.storage.ports import BlobStore, BlobWriter, StoredBlob

TICKET_LIFE = timedelta(hours=1)
LARGEST_OBJECT = 50_000_000_000
MOST_OBJECTS = 1000
Begin = Callable[..., AbstractContextManager[Work]]
"""A door to a Work that has authenticated its caller."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A file a client is about to upload."""

    path: str
    size: int
    sample: bytes = b""


@dataclass(frozen=True, slots=True)
class Advice:
    """How to send an announced file. ``oid`` is what is there now: equal files need no sending."""

    path: str
    lfs: bool
    ignored: bool
    oid: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object to send, or (``ticket`` None) one that is stored already.

    ``secret`` is the only copy of what makes the address work.
    """

    sha256: str
    size: int
    ticket: str | None
    secret: str | None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that was presented with its secret and is still good.

    ``heals``: the stored copy is known to be corrupt, and is replaced by what comes.
    """

    id: str
    sha256: str
    size: int
    heals: bool


def load_writable(work: Work, repo_id: str) -> VariantRow:
    """Return the variant of a repository that the caller may add revisions to.

    Raises:
        Unauthenticated, Forbidden: the caller may not. NotFound: there is no such repository.
    """
    require(work.actor, Permission.CATALOG_WRITE)
    return queries.load_variant(work, repo_id)


def create_repo(work: Work, *, namespace: str | None, name: str) -> tuple[VariantRow, bool]:
    """Return the repository ``namespace/name`` and whether it was made just now.

    A new one is a variant without stated size, in the family that bears the namespace's name. The
    namespace of None is the caller's own.
    """
    require(work.actor, Permission.CATALOG_WRITE)
    repo_id = check_repo_id(f"{namespace or work.actor.name}/{name}")
    found = queries.find_variant(work, repo_id)
    if found is not None:
        return found[0], False
    owner = repo_id.partition("/")[0]
    family = service.ensure_family(work, family_id=owner, name=owner)
    row = service.ensure_variant(work, family_id=family.id, label=name, repo_id=repo_id)
    return row, True


def preupload(work: Work, *, repo_id: str, rev: str, files: Sequence[Announced]) -> list[Advice]:
    """Say how each announced file is to be sent, and refuse early what would be refused late.

    Raises:
        Invalid: a path, name or sample that is never hosted.
    """
    variant = load_writable(work, repo_id)
    head = queries.resolve_rev(work, variant.id, rev)
    there = {f.path: f for f in queries.files(work, head)} if head else {}
    advice = []
    for file in files:
        if file.path.partition("/")[0] in SKIPPED:
            advice.append(Advice(file.path, lfs=False, ignored=True, oid=None))
            continue
        check_name(check_path(file.path))
        check_content(file.path, file.sample)
        now = there.get(file.path)
        oid = (now.sha256 if now.lfs else now.git_oid) if now else None
        lfs = is_lfs(file.path, file.size)
        advice.append(Advice(file.path, lfs=lfs, ignored=False, oid=oid))
    return advice


def lfs_batch(
    work: Work, blobs: BlobStore, *, repo_id: str, objects: Sequence[tuple[str, int]]
) -> list[Wanted]:
    """Open a ticket for each ``(sha256, size)`` that is not stored yet, good for an hour.

    Raises:
        Invalid: a malformed digest or size. TooLarge: an object beyond any weight file.
    """
    variant = load_writable(work, repo_id)
    if len(objects) > MOST_OBJECTS:
        raise TooLarge(f"At most {MOST_OBJECTS} objects at once.", reason="upload.objects")
    known = queries.find_blobs(work, [sha256 for sha256, _ in objects])
    answers = []
    for sha256, size in objects:
        if not is_sha256(sha256) or size < 0:
            raise Invalid("An object needs a SHA-256 and a size.", reason="upload.object")
        if size > LARGEST_OBJECT:
            raise TooLarge(f"An object has at most {LARGEST_OBJECT:,} bytes.")
        row = known.get(sha256)
        if row and row.corrupt_at is None and row.size == size and blobs.has(sha256):
            answers.append(Wanted(sha256, size, None, None))
            continue
        answers.append(_open_ticket(work, variant, sha256, size))
    return answers


def _open_ticket(work: Work, variant: VariantRow, sha256: str, size: int) -> Wanted:
    secret = new_salt(32).hex()
    ticket = UploadTicket(
        id=new_id("up"),
        variant_id=variant.id,
        person_id=work.actor.id,
        sha256=sha256,
        size=size,
        secret_sha256=hashlib.sha256(secret.encode()).digest(),
        expires_at=work.now + TICKET_LIFE,
    )
    work.session.add(ticket)
    return Wanted(sha256, size, ticket.id, secret)


def present_ticket(work: Work, ticket_id: str, secret: str) -> Ticket:
    """Return the ticket that an address stands for.

    Raises:
        Forbidden: there is none, the secret is another, its hour is over, or whoever it was given
            to may not upload any more.
    """
    row = work.session.execute(
        select(
            UploadTicket.sha256,
            UploadTicket.size,
            UploadTicket.secret_sha256,
            UploadTicket.expires_at,
            UploadTicket.person_id,
        ).where(UploadTicket.id == ticket_id)
    ).one_or_none()
    given = hashlib.sha256(secret.encode()).digest()
    if (
        row is None
        or not hmac.compare_digest(row[2], given)
        or row[3] <= work.now
        or not _may_still_write(work, row[4])
    ):
        raise Forbidden(
            "This upload address is unknown or has expired.",
            reason="upload.ticket",
            next_step="Run the upload again; what has arrived is not sent twice.",
        )
    blob = queries.find_blob(work, row[0])
    return Ticket(ticket_id, row[0], row[1], heals=blob is not None and blob.corrupt_at is not None)


def _may_still_write(work: Work, person_id: str) -> bool:
    """Tell whether somebody is still let in, and has a role that uploads."""
    person = people.load_person(work, person_id)
    if person.disabled_at is not None:
        return False
    roles = frozenset(people.roles_now(work, person_id))
    now = Actor(kind=ActorKind.PERSON, id=person.id, name=person.handle, roles=roles)
    return authorize(now, Permission.CATALOG_WRITE).allowed


class Receiver:
    """One object on its way in. A context manager: leaving it without ``finish`` keeps nothing."""

    def __init__(self, blobs: BlobStore, ticket: Ticket) -> None:
        self._blobs = blobs
        self._ticket = ticket
        self._digest = hashlib.sha256() if ticket.heals else None
        self._writer: BlobWriter = blobs.writer()
        self._head = bytearray()

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, data: bytes) -> None:
        """Append what has come in.

        Raises:
            TooLarge: more than was announced.
        """
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        if self._writer.size + len(data) > self._ticket.size:
            raise TooLarge(
                f"More than the {self._ticket.size:,} bytes announced.", reason="upload.size"
            )
        self._writer.write(data)
        if self._digest is not None:
            self._digest.update(data)

    def finish(self) -> StoredBlob:
        """Put the object in place, durably.

        Raises:
            Invalid: shorter than announced, another digest, or bytes that are never hosted.
        """
        if self._writer.size != self._ticket.size:
            raise Invalid(
                f"{self._writer.size:,} of {self._ticket.size:,} announced bytes came.",
                reason="upload.size",
            )
        if not _may_be_safetensors(bytes(self._head[:9]), self._ticket.size):
            check_content(f"object {self._ticket.sha256[:12]}", bytes(self._head))
        if self._digest is not None and self._digest.hexdigest() == self._ticket.sha256:
            self._blobs.delete(self._ticket.sha256)  # a store keeps the first copy; it is bad
        return self._writer.commit(self._ticket.sha256)


def _may_be_safetensors(head: bytes, size: int) -> bool:
    """Tell a safetensors beginning from a pickle's: a length that fits, then ``{``.

    The first two bytes of that length can look like a pickle's mark. What a file is for is known at
    commit only, where its whole header is judged.
    """
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def note_received(work: Work, blobs: BlobStore, ticket: Ticket) -> None:
    """Write that the object of a ticket is stored; whole again, if it was corrupt before."""
    stored.note_blobs(work, {ticket.sha256: ticket.size}, blobs=blobs)
    if ticket.heals:
        stored.note_healed(work, ticket.sha256)
    work.session.execute(
        update(UploadTicket).where(UploadTicket.id == ticket.id).values(stored_at=work.now)
    )


def verify(work: Work, blobs: BlobStore, *, repo_id: str, sha256: str, size: int) -> None:
    """Return only if an object is stored as announced.

    Raises:
        NotFound: it is not. Corrupt: the store and the record disagree.
    """
    load_writable(work, repo_id)
    row = queries.find_blob(work, sha256) if is_sha256(sha256) else None
    if row is None or row.size != size:
        raise NotFound(
            f"No object {sha256[:64]} of {size:,} bytes is here.", reason="upload.object"
        )
    if not blobs.has(sha256) or blobs.size(sha256) != size:
        raise Corrupt(f"The object {sha256} is not whole in the store.", reason="blob.missing")


def card_errors(content: str) -> list[str]:
    """Return what is wrong with the metadata block of a README, or nothing.

    The block is YAML between two lines of ``---`` at the very beginning; a README needs none.
    """
    lines = content.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return []
    ends = [n for n, line in enumerate(lines[1:], 1) if line.strip() == "---"]
    if not ends:
        return ["The metadata block that begins with '---' never ends."]
    try:
        block = yaml.safe_load("\n".join(lines[1 : ends[0]]))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return [f"The metadata block is not YAML: {str(error)[:300]}"]
    if block is not None and not isinstance(block, dict):
        return ["The metadata block must be a mapping of names to values."]
    return []


def create_branch(work: Work, *, repo_id: str, branch: str, start: str | None) -> RefRow:
    """Add a branch at ``start`` (``main`` when None).

    Raises:
        Conflict: it exists. NotFound: ``start`` names nothing.
    """
    return _create_ref(work, repo_id, branch, start or "main", "branch")


def create_tag(work: Work, *, repo_id: str, tag: str, rev: str) -> RefRow:
    """Add a tag at ``rev``.

    Raises:
        Conflict: it exists. NotFound: ``rev`` names nothing.
    """
    return _create_ref(work, repo_id, tag, rev, "tag")


def delete_ref(work: Work, *, repo_id: str, name: str, kind: str) -> None:
    """Remove a branch or tag; ``main`` stays, and so do all revisions."""
    variant = load_writable(work, repo_id)
    service.delete_ref(work, variant_id=variant.id, name=name, kind=kind)


def _create_ref(work: Work, repo_id: str, name: str, rev: str, kind: str) -> RefRow:
    variant = load_writable(work, repo_id)
    target = queries.resolve_rev(work, variant.id, rev)
    if target is None:
        raise NotFound(f"{repo_id} has no revision {rev!r}.", reason="revision")
    return service.create_ref(work, variant_id=variant.id, name=name, revision_id=target, kind=kind)
