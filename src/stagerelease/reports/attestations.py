"""Gives signatures over manifests to those who may have the files, so that they can verify them.

Whoever may download a revision may have its signatures; staff may have all. Public keys are public.
"""

from __future__ import annotations

from stagerelease.catalog import attested, signatures
from stagerelease.catalog.attested import ManifestSignatureRow
from stagerelease.db.work import Work
from stagerelease.downloads.service import refuse
from stagerelease.entitlements import service as entitlements
from stagerelease.identity.rules import Permission, authorize
from stagerelease.kernel.errors import Unauthenticated
from stagerelease.storage.ports import BlobStore


def signatures_of(work: Work, repo_id: str, *, rev: str = "main") -> list[ManifestSignatureRow]:
    """Return the signatures over a revision, oldest first.

    Raises:
        NotFound: there is no such revision, or the caller may not know of it.
        Gated: the caller may not have its files. Unauthenticated: nobody is signed in.
    """
    if authorize(work.actor, Permission.CATALOG_READ_INTERNAL).allowed:
        return signatures.list_signatures(work, repo_id, rev=rev)
    entitled = entitlements.see(work, work.actor, repo_id, rev)
    if not entitled.decision.allowed and not work.actor.known:
        raise Unauthenticated(entitled.decision.sentence, next_step=entitled.decision.next_step)
    if not entitled.decision.allowed:
        raise refuse(entitled.decision, work.actor)
    return attested.all_signatures(work, entitled.revision.id)


def bundle_of(
    work: Work, blobs: BlobStore, repo_id: str, signature_id: str, *, rev: str = "main"
) -> bytes:
    """Return a bundle exactly as it was handed in, for `model_signing verify key`.

    Raises:
        NotFound: the revision has no such signature, or the caller may not know of it.
        Gated: the caller may not have its files.
    """
    for row in signatures_of(work, repo_id, rev=rev):
        if row.id == signature_id:
            with blobs.open(row.bundle_sha256) as reader:
                return reader.read()
    raise signatures.no_signature()
