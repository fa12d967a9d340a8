"""Model cards that are final, and signatures over manifests, from the command line.

Registers its commands on the ``catalog`` group: they are about what the catalog holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stagerelease.catalog import cards, signatures
from stagerelease.catalog.bundles import LARGEST
from stagerelease.cli.box import opened
from stagerelease.cli.catalog import catalog
from stagerelease.kernel.errors import Invalid
from stagerelease.reports import attestations

key = typer.Typer(help="Public keys whose signatures count.", no_args_is_help=True)
catalog.add_typer(key, name="key")
GROUPS: dict[str, typer.Typer] = {}

SIGNATURE = ["id", "key_id", "revision_id", "manifest_sha256", "at", "counts"]
KEY = ["id", "curve", "pem_sha256", "added_at", "retired_at", "compromised"]
Repo = Annotated[str, typer.Argument(help="Repository id or alias.")]
Rev = Annotated[str, typer.Option(help="Branch, tag or commit.")]
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]


def _read(path: Path) -> bytes:
    with path.open("rb") as reader:
        text = reader.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise Invalid(f"{path} has more than {LARGEST:,} bytes.", reason="file.size")
    return text


@catalog.command("lock-card")
def lock_card(repo: Repo, revision: Rev = "main") -> None:
    """Lock the model card of a revision: these bytes are final. There is no unlocking."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(cards.lock_card(work, repo, rev=revision))


@catalog.command("add-signature")
def add_signature(repo: Repo, bundle: File, revision: Rev = "main") -> None:
    """Verify a bundle of `model_signing sign key` and keep it."""
    with opened() as box:
        row = signatures.add_signature(
            box.works, box.blobs, box.actor, repo, bundle=_read(bundle), rev=revision
        )
        box.out.show(row)


@catalog.command("signatures")
def list_signatures(
    repo: Repo,
    revision: Rev = "main",
    save: Annotated[
        Path | None, typer.Option(help="Write the newest bundle that counts to this file.")
    ] = None,
) -> None:
    """List the signatures over a revision; verify them with `model_signing verify key`."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        rows = attestations.signatures_of(work, repo, rev=revision)
        if save is not None:
            counting = [row for row in rows if row.counts]
            if not counting:
                raise signatures.no_signature()
            bundle = attestations.bundle_of(work, box.blobs, repo, counting[-1].id, rev=revision)
            save.write_bytes(bundle)
            box.out.say(f"Wrote {counting[-1].id} to {save}.")
        box.out.show(rows, columns=SIGNATURE)


@key.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Its name, which plans can ask for.")],
    pem: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Public key, PEM.")],
) -> None:
    """Register a public key whose signatures count from now on."""
    with opened() as box, box.works.begin(box.actor) as work:
        text = _read(pem).decode("ascii", "replace")
        box.out.show(signatures.add_key(work, name, pem=text), columns=KEY)


@key.command("list")
def list_keys() -> None:
    """List every key that counts or counted."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(signatures.list_keys(work), columns=KEY)


@key.command("retire")
def retire_key(
    name: Annotated[str, typer.Argument(help="Its name.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Let none of its signatures count any more.")
    ] = False,
) -> None:
    """Accept no more signatures by a key."""
    with opened() as box, box.works.begin(box.actor) as work:
        row = signatures.retire_key(work, name, reason=reason, compromised=compromised)
        box.out.show(row, columns=KEY)
