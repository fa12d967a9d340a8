"""What a promotion changes: who gains access, which files, and what the card says otherwise."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from stagerelease.catalog import queries as catalog
from stagerelease.catalog.attested import CARD
from stagerelease.catalog.queries import FileRow
from stagerelease.db.work import Work
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import Stage
from stagerelease.releases.requests import PromotionRow
from stagerelease.storage.ports import BlobStore

MOST_FILES = 200
MOST_LINES = 400
LARGEST_CARD = 400_000
AUDIENCES = {
    "staff": "staff of this service alone",
    "organisations": "people of organisations that hold a grant",
    "people": "people and organisations that hold a grant",
    "everyone": "everybody, without an account",
}
Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different once a request is applied. ``card`` is None without an older card."""

    who: Lines
    files: tuple[FileRow, ...]
    file_count: int
    byte_count: int
    card: Lines | None


def difference(work: Work, blobs: BlobStore, row: PromotionRow) -> Difference:
    """Return what changes when a request is applied."""
    plan = releases.plan_of(work, row.plan_version_id)
    track = releases.load_track(work, row.track_id)
    files = [f for f in catalog.files(work, track.revision_id) if f.kind == row.kind]
    return Difference(
        who=_who(plan.stage(row.from_stage), plan.stage(row.to_stage)),
        files=tuple(files[:MOST_FILES]),
        file_count=len(files),
        byte_count=sum(f.size for f in files),
        card=_card(work, blobs, track.revision_id),
    )


def _said(stage: Stage) -> dict[str, str]:
    return {
        "Who": AUDIENCES[stage.audience],
        "Agreement": stage.agreement or "none",
        "May": " and ".join(sorted(stage.permissions)) or "nothing",
        "Listed in public": "yes" if stage.listed else "no",
    }


def _who(below: Stage, above: Stage) -> Lines:
    before, after = _said(below), _said(above)
    lines: list[tuple[str, str]] = []
    for key, value in after.items():
        if before[key] == value:
            lines.append((" ", f"{key}: {value}"))
        else:
            lines += [("-", f"{key}: {before[key]}"), ("+", f"{key}: {value}")]
    return tuple(lines)


def _card(work: Work, blobs: BlobStore, revision_id: str) -> Lines | None:
    parent = catalog.load_revision(work, revision_id).parent_id
    old = catalog.find_file(work, parent, CARD) if parent else None
    if old is None:
        return None
    new = catalog.find_file(work, revision_id, CARD)
    if new is not None and new.sha256 == old.sha256:
        return ()
    lines = difflib.unified_diff(
        _text(blobs, old), _text(blobs, new) if new else [], lineterm="", n=2
    )
    body = [line for line in lines if not line.startswith(("---", "+++"))][:MOST_LINES]
    return tuple((line[:1] if line[:1] in "+-" else " ", line[1:] or " ") for line in body)


def _text(blobs: BlobStore, file: FileRow) -> list[str]:
    with blobs.open(file.sha256) as reader:
        return reader.read(LARGEST_CARD).decode("utf-8", "replace").splitlines()
