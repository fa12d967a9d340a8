"""The acts of a replay, each through the use case that staff or partners use, at a set instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stagerelease.catalog import queries as catalog
from stagerelease.catalog import service as catalog_service
from stagerelease.catalog.rules import NewFile
from stagerelease.db.work import Work, Works
from stagerelease.downloads import service as downloads
from stagerelease.evidence import service as evidence
from stagerelease.evidence.measure import NewEvidence
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.digests import git_blob_sha1
from stagerelease.ledger import service as ledger
from stagerelease.ledger.signer import LogSigner
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import service as partners
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service
from stagerelease.storage.ports import BlobStore

Watch = Callable[["Stage", int], None]
"""Called with the number of a request right before it is applied; for those who check a replay."""

REVIEWERS = ("reviewer-1", "reviewer-2")


def unwatched(stage: Stage, promotion_id: int) -> None:
    """Look at nothing."""


@dataclass(slots=True)
class Stage:
    """What a replay is played on: an installation, its set clock, and the tokens of its roles."""

    works: Works
    blobs: BlobStore
    signer: LogSigner
    clock: SetClock
    watch: Watch = unwatched
    tokens: dict[str, str] = field(default_factory=dict)

    # --- who -----------------------------------------------------------------------------------

    def begin(self, who: str, *, dry_run: bool = False) -> AbstractContextManager[Work]:
        """Open a Work of a role account, as it stands at the set instant."""
        with self.works.begin(quiet=True) as work:
            actor = identity.authenticate(work, self.tokens[who])
        return self.works.begin(actor, dry_run=dry_run)

    def role(self, handle: str, role: str, name: str) -> None:
        """Add a role account: an account of a role, not of an invented person."""
        with self.works.begin(OPERATOR) as work:
            identity.create_person(work, handle=handle, display_name=name)
            identity.assign_role(work, person=handle, role=role)
            _, self.tokens[handle] = identity.create_token(work, person=handle, name="replay")

    def organisation(self, slug: str, name: str) -> None:
        """Add a partner organisation with one role account that administers its roster."""
        handle = f"{slug}-admin"
        with self.works.begin(OPERATOR) as work:
            identity.create_organisation(work, slug=slug, name=name)
            identity.create_person(work, handle=handle, display_name=f"Role account of {name}")
            identity.add_member(work, organisation=slug, person=handle, role="partner_admin")
            _, self.tokens[handle] = identity.create_token(work, person=handle, name="replay")

    # --- what ----------------------------------------------------------------------------------

    def plan(self, source: str, *, why: str) -> None:
        """Register a plan: one role account proposes it and another consents to exactly it."""
        with self.begin("release-manager") as work:
            proposal = release_service.propose_plan(work, source, rationale=why)
        if proposal.state == "pending":
            with self.begin(REVIEWERS[0]) as work:
                release_service.consent_to_plan(work, proposal.id, sha256=proposal.sha256)

    def revision(
        self, repo_id: str, files: Mapping[str, tuple[str, str]], *, message: str, ref: str = "main"
    ) -> str:
        """Record a revision of texts (``path`` to ``(kind, text)``) and return its id."""
        new = [self._file(path, kind, text) for path, (kind, text) in files.items()]
        with self.begin("release-manager") as work:
            variant = catalog.load_variant(work, repo_id)
            return catalog_service.record_revision(
                work,
                variant_id=variant.id,
                files=new,
                message=message,
                parent_id=catalog.find_ref(work, variant.id, ref),
                ref=ref,
                parameters=None,  # counted from weight files, and there are none here
                blobs=self.blobs,
            ).id

    def _file(self, path: str, kind: str, text: str) -> NewFile:
        data = text.encode()
        with self.blobs.writer() as writer:
            writer.write(data)
            stored = writer.commit()
        return NewFile(path, stored.size, stored.sha256, git_blob_sha1(data), False, kind)

    def track(self, repo_id: str, revision: str, kind: str, plan: str) -> str:
        """Start a track and return its id."""
        with self.begin("release-manager") as work:
            return release_service.create_track(
                work, repo_id=repo_id, kind=kind, revision=revision, plan=plan
            ).id

    def manifest(self, track_id: str) -> str:
        """Return the digest of the manifest that a track is about."""
        with self.works.begin(SYSTEM, read_only=True) as work:
            track = releases.load_track(work, track_id)
            return catalog.load_revision(work, track.revision_id).manifest_sha256

    # --- evidence ------------------------------------------------------------------------------

    def evidence(
        self, new: NewEvidence, *, by: str = "security", organisation: str | None = None
    ) -> str:
        """Hand evidence in as one role account, accept it as another, and return its id."""
        with self.begin(by) as work:
            row = evidence.hand_in(work, new, organisation=organisation)
        with self.begin("release-manager") as work:
            release_service.accept_evidence(
                work, row.id, reason="Read in the record that ships with this replay."
            )
        return row.id

    # --- decisions -----------------------------------------------------------------------------

    def promote(
        self,
        track_id: str,
        to: str,
        *,
        at: datetime,
        why: str,
        rests_on: Sequence[str] = (),
        judge: Mapping[str, str] | None = None,
    ) -> int:
        """Ask for a stage, have two reviewers approve, and apply it at ``at``, to the minute."""
        self.clock.set(at - timedelta(hours=1))
        with self.begin("release-manager") as work:
            request = release_service.open_promotion(
                work,
                track_id=track_id,
                to=to,
                rationale=why,
                evidence_ids=list(rests_on),
                scheduled_for=at,
            )
        for gate, reason in (judge or {}).items():
            with self.begin(REVIEWERS[0]) as work:
                release_service.judge(
                    work,
                    request.id,
                    request_hash=request.request_hash,
                    gate=gate,
                    passed=True,
                    reason=reason,
                )
        for reviewer in REVIEWERS:
            with self.begin(reviewer) as work:
                release_service.approve(
                    work,
                    request.id,
                    request_hash=request.request_hash,
                    comment="Approved in the replay by a role account.",
                )
        self.clock.set(at)
        self.watch(self, request.id)
        with self.begin("release-manager") as work:
            release_service.apply(work, request.id)
        self.checkpoint()
        return request.id

    def checkpoint(self) -> None:
        """Sequence what waits, and sign the log as it stands."""
        with self.works.begin(SYSTEM, quiet=True) as work:
            while ledger.sequence_pending(work):
                pass
            ledger.sign_checkpoint(work, self.signer)

    # --- partners ------------------------------------------------------------------------------

    def agreement(self, slug: str, title: str, text: str) -> None:
        """Put the first version of an agreement in force."""
        with self.begin("access-officer") as work:
            partners.create_agreement(work, slug=slug, title=title)
            version = partners.draft_version(work, agreement=slug, text=text, duo_codes=["NCU"])
            partners.publish_version(work, version.id)

    def sign(self, organisation: str, agreement: str) -> None:
        """Sign for an organisation by its role account, and countersign."""
        handle = f"{organisation}-admin"
        with self.begin(handle) as work:
            version = partner_queries.find_in_force(work, agreement)
            if version is None:
                raise LookupError(f"no version of {agreement} is in force")
            signature = partners.sign(
                work,
                version_id=version.id,
                text_sha256=version.text_sha256,
                typed_name=work.actor.name,
                typed_title="Role account in a replay: no person signed this",
                authorised_to_bind=True,
                consents_electronically=True,
                organisation=organisation,
            )
        with self.begin("access-officer") as work:
            partners.countersign(work, signature.id)

    def grant(self, track_id: str, organisation: str, *, purpose: str, until: datetime) -> None:
        """Let a partner organisation in."""
        with self.begin("access-officer") as work:
            partners.issue_grant(
                work,
                track_id=track_id,
                organisation=organisation,
                permissions=("download",),
                purpose=purpose,
                valid_until=until,
            )

    def fetch(self, organisation: str, repo_id: str, path: str) -> None:
        """Deliver one file to a partner, whole, and record it as any delivery is recorded."""
        with self.begin(f"{organisation}-admin") as work:
            ticket = downloads.prepare(work, repo_id=repo_id, rev="main", path=path, record=True)
        if ticket.download_id is None:
            raise LookupError(f"{path} was not delivered under a track")
        downloads.finish(
            self.works, ticket.download_id, first=0, sent=ticket.copy.size, outcome="whole"
        )
