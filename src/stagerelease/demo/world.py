"""Lays the demo world down through the same use cases that staff and partners use.

Nothing is written to a table directly: the release manager opens promotions, two reviewers approve,
the partner's administrator signs. Running it again finds what is there and adds what is missing, so
a kill midway is mended by the next start.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from stagerelease.catalog import importer
from stagerelease.catalog import queries as catalog
from stagerelease.catalog import service as catalog_service
from stagerelease.db.work import Work, Works
from stagerelease.identity import queries as people
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR, Actor
from stagerelease.kernel.errors import Invalid
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import service as partners
from stagerelease.partners.texts import shipped_text
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service
from stagerelease.settings import Settings
from stagerelease.storage.ports import BlobStore

FILE = "demo.json"
CHECKPOINTS = Path(__file__).parent / "checkpoints"
STAGES = {
    "public": "demo/gpt2-mini-124M",
    "researcher": "demo/gpt2-mini-335M",
    "partner": "demo/gpt2-mini-774M",
    "internal": "demo/gpt2-mini-1.5B",
}
LADDER = ("internal", "partner", "researcher", "public")
TOKEN_NAME = "demo"  # noqa: S105 (the name of the token, not the token)


@dataclass(frozen=True, slots=True)
class Persona:
    """One demo account: its role here or its place on a roster."""

    handle: str
    name: str
    role: str | None = None
    organisation: str | None = None
    roster: str | None = None


PERSONAS = {
    "owner": Persona("demo-owner", "Owner (demo)", role="owner"),
    "release_manager": Persona("demo-manager", "Release manager (demo)", role="release_manager"),
    "reviewer_a": Persona("demo-reviewer-a", "Reviewer A (demo)", role="reviewer"),
    "reviewer_b": Persona("demo-reviewer-b", "Reviewer B (demo)", role="reviewer"),
    "access_officer": Persona("demo-access", "Access officer (demo)", role="access_officer"),
    "security": Persona("demo-security", "Security (demo)", role="security"),
    "auditor": Persona("demo-auditor", "Auditor (demo)", role="auditor"),
    "partner": Persona(
        "demo-partner", "Administrator of Partner A", None, "partner-a", "partner_admin"
    ),
    "other_partner": Persona(
        "demo-other-partner", "Administrator of Partner B", None, "partner-b", "partner_admin"
    ),
    "researcher": Persona("demo-researcher", "Researcher (demo)", role="researcher"),
    "outsider": Persona("demo-outsider", "Outsider (demo)"),
}
ORGANISATIONS = {"partner-a": "Partner A (demo)", "partner-b": "Partner B (demo)"}

Say = Callable[[str], None]


def lay_down(
    works: Works, blobs: BlobStore, settings: Settings, *, base_url: str, say: Say
) -> dict[str, Any]:
    """Make the demo world complete and return what ``DATA_DIR/demo.json`` says.

    Raises:
        Invalid: the data directory already holds a real installation.
    """
    path = settings.data_dir / FILE
    known = _read(path)
    handles = {key: persona.handle for key, persona in PERSONAS.items()}
    if known is not None:
        now = known | {"base_url": base_url, "people": handles}
        if now != known:
            _write(path, now)
        return now
    _refuse_real_installation(works)
    say("Laying down the demo world …")
    tokens = _people(works)
    actors = _actors(works, tokens)
    _plan_and_agreements(works, actors)
    for stage, repo_id in STAGES.items():
        say(f"  {repo_id} → {stage}")
        _checkpoint(works, blobs, actors, repo_id)
        _promote(works, actors, repo_id, stage)
    _grants(works, actors)
    document = {
        "base_url": base_url,
        "repos": STAGES,
        "people": handles,
        "tokens": tokens,
        "note": "Demonstration only. These tokens open nothing outside this data directory.",
    }
    _write(path, document)
    say("The demo world is complete.")
    return document


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(document, out, indent=2)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, path)


def _refuse_real_installation(works: Works) -> None:
    ours = {persona.handle for persona in PERSONAS.values()}
    with works.begin(OPERATOR, read_only=True) as work:
        strangers = [p.handle for p in people.list_people(work) if p.handle not in ours]
    if strangers:
        raise Invalid(
            "This data directory holds real people already, so the demo world is not laid here.",
            reason="demo.not-empty",
            next_step="Use another one: DATA_DIR=demo-data make run.",
        )


def _people(works: Works) -> dict[str, str]:
    tokens: dict[str, str] = {}
    with works.begin(OPERATOR) as work:
        for slug, name in ORGANISATIONS.items():
            if people.find_organisation(work, slug) is None:
                identity.create_organisation(work, slug=slug, name=name)
        for key, persona in PERSONAS.items():
            _person(work, persona)
            for old in people.list_tokens(
                work, person_id=people.load_person(work, persona.handle).id
            ):
                if old.revoked_at is None:
                    identity.revoke_token(work, old.id)  # of a start that was cut short
            _, tokens[key] = identity.create_token(work, person=persona.handle, name=TOKEN_NAME)
    return tokens


def _person(work: Work, persona: Persona) -> None:
    if people.find_person(work, persona.handle) is not None:
        return
    identity.create_person(work, handle=persona.handle, display_name=persona.name)
    if persona.role is not None:
        identity.assign_role(work, person=persona.handle, role=persona.role)
    if persona.organisation is not None and persona.roster is not None:
        identity.add_member(
            work,
            organisation=persona.organisation,
            person=persona.handle,
            role=persona.roster,
        )


def _actors(works: Works, tokens: dict[str, str]) -> dict[str, Actor]:
    with works.begin(quiet=True) as work:
        return {key: identity.authenticate(work, text) for key, text in tokens.items()}


def _plan_and_agreements(works: Works, actors: dict[str, Actor]) -> None:
    with works.begin(actors["release_manager"]) as work:
        release_service.plan_in_force(work, "demo")
    with works.begin(actors["access_officer"]) as work:
        for slug, title in (
            ("model-sharing", "Model-sharing agreement, non-commercial"),
            ("researcher-terms", "Terms for researchers"),
        ):
            if partner_queries.find_in_force(work, slug) is not None:
                continue
            if partner_queries.find_agreement(work, slug) is None:
                partners.create_agreement(work, slug=slug, title=title)
            version = partners.draft_version(
                work, agreement=slug, text=shipped_text(slug), duo_codes=["NCU"]
            )
            partners.publish_version(work, version.id)


def _checkpoint(works: Works, blobs: BlobStore, actors: dict[str, Actor], repo_id: str) -> None:
    name = repo_id.partition("/")[2]
    with works.begin(actors["release_manager"]) as work:
        catalog_service.ensure_family(work, family_id="gpt2-mini", name="GPT-2 miniatures (demo)")
        catalog_service.ensure_variant(
            work, family_id="gpt2-mini", repo_id=repo_id, label=name.removeprefix("gpt2-mini-")
        )
    importer.import_directory(
        works,
        blobs,
        actors["release_manager"],
        directory=CHECKPOINTS / name,
        repo_id=repo_id,
        message="Trained miniature",
    )
    with works.begin(actors["release_manager"]) as work:
        variant = catalog.load_variant(work, repo_id)
        head = catalog.find_ref(work, variant.id, "main")
        if head is not None and not releases.tracks_of_revision(work, head):
            release_service.create_track(work, repo_id=repo_id, plan="demo")


def _track(work: Work, repo_id: str) -> releases.TrackRow:
    variant = catalog.load_variant(work, repo_id)
    head = catalog.find_ref(work, variant.id, "main")
    return releases.tracks_of_revision(work, str(head))[0]


def _promote(works: Works, actors: dict[str, Actor], repo_id: str, goal: str) -> None:
    while True:
        with works.begin(OPERATOR, read_only=True) as work:
            track = _track(work, repo_id)
        if LADDER.index(track.stage) >= LADDER.index(goal):
            return
        to = LADDER[LADDER.index(track.stage) + 1]
        with works.begin(actors["release_manager"]) as work:
            promotion = release_service.open_promotion(
                work,
                track_id=track.id,
                to=to,
                rationale=f"Demonstration: {repo_id} moves to {to}.",
            )
        for reviewer in ("reviewer_a", "reviewer_b"):
            with works.begin(actors[reviewer]) as work:
                release_service.approve(
                    work,
                    promotion.id,
                    request_hash=promotion.request_hash,
                    comment="Looked at the card and the samples.",
                )
        with works.begin(actors["release_manager"]) as work:
            release_service.apply(work, promotion.id)


def _grants(works: Works, actors: dict[str, Actor]) -> None:
    _sign(works, actors["partner"], "model-sharing", organisation="partner-a")
    _sign(works, actors["researcher"], "researcher-terms", organisation=None)
    with works.begin(actors["access_officer"]) as work:
        until = work.now + timedelta(days=365)
        for repo, organisation, person in (
            (STAGES["partner"], "partner-a", None),
            (STAGES["researcher"], None, PERSONAS["researcher"].handle),
        ):
            track = _track(work, repo)
            if partner_queries.list_grants(work, track_id=track.id):
                continue
            partners.issue_grant(
                work,
                track_id=track.id,
                permissions=("download", "infer"),
                purpose="Demonstration of gated access.",
                valid_until=until,
                organisation=organisation,
                person=person,
            )


def _sign(works: Works, signer: Actor, agreement: str, *, organisation: str | None) -> None:
    with works.begin(signer) as work:
        version = partner_queries.find_in_force(work, agreement)
        if version is None or partner_queries.has_signed(
            work, version.id, person_id=signer.id, organisation=organisation
        ):
            return
        partners.sign(
            work,
            version_id=version.id,
            text_sha256=version.text_sha256,
            typed_name=people.load_person(work, signer.id).display_name,
            typed_title="Demonstration role",
            authorised_to_bind=True,
            consents_electronically=True,
            organisation=organisation,
        )


def invitation(data_dir: Path) -> str:
    """Return commands to paste: list, download as the partner, be refused, ask a model."""
    document = _read(data_dir / FILE)
    if document is None:
        return ""
    base, tokens, repos = document["base_url"], document["tokens"], document["repos"]
    repo = repos["partner"]
    return "\n".join(
        [
            "",
            f"Open {base}/ in a browser, or try it in another terminal:",
            "",
            "# 1. what anybody may know of",
            f"curl -s {base}/api/models",
            "",
            "# 2. the partner downloads the gated checkpoint with the ordinary client",
            f"HF_ENDPOINT={base} HF_TOKEN={tokens['partner']} .venv/bin/hf download {repo}",
            "",
            "# 3. the outsider is refused, in words",
            f"HF_ENDPOINT={base} HF_TOKEN={tokens['outsider']} .venv/bin/hf download {repo}",
            "",
            "# 4. the partner asks the model (needs torch: make inference, then start again)",
            f"curl -s {base}/v1/completions -H 'Authorization: Bearer {tokens['partner']}' "
            f'-d \'{{"model": "{repo}", "prompt": "Once", "max_tokens": 24}}\'',
            "",
            f"More roles and tokens: {data_dir / FILE} (mode 600). Stop with Ctrl-C.",
        ]
    )
