"""The transparency log from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from stagerelease.cli.box import opened
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.errors import Corrupt, Invalid
from stagerelease.ledger import fsck, merkle, notes, queries, service

ledger = typer.Typer(help="The tamper-evident log.", no_args_is_help=True)
GROUPS = {"ledger": ledger}


@ledger.command("verify")
def verify() -> None:
    """Recompute the whole log and say what does not agree; exit 5 when anything does not."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        size = queries.log_size(work)
        with Progress(console=box.out.messages, transient=True) as progress:
            task = progress.add_task("entries", total=size)
            findings = fsck.verify_all(
                work, vkey=box.signer.vkey, progress=lambda n: progress.update(task, completed=n)
            )
        if findings:
            box.out.show(findings)
            raise Corrupt(
                f"The log of {size} entries does not verify in {len(findings)} places.",
                reason="ledger.tampered",
                next_step="Stop the service, keep the data directory, compare with a backup.",
            )
        root = queries.root_at(work, size).hex()
        box.out.show({"entries": size, "root": root, "verified": True})


@ledger.command("checkpoint")
def checkpoint() -> None:
    """Sign the present head if it has moved, and print the checkpoint."""
    with opened() as box:
        with box.works.begin(SYSTEM, quiet=True) as work:
            while service.sequence_pending(work):
                pass
            note = service.sign_checkpoint(work, box.signer)
        sys.stdout.write(note)


@ledger.command("prove")
def prove(idx: int) -> None:
    """Print the inclusion proof of an entry (C2SP tlog-proof), to keep and check offline."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        sys.stdout.write(queries.prove(work, idx))


@ledger.command("check-proof")
def check_proof(
    proof_file: Path,
    body_file: Annotated[Path, typer.Option("--body", help="The entry's body, as bytes.")],
    vkey: Annotated[str, typer.Option(help="The log's verifier key.")],
) -> None:
    """Check a proof offline: needs no database and trusts nothing but the verifier key."""
    try:
        idx, hashes, note = notes.parse_proof(proof_file.read_text())
        head = notes.open_checkpoint(note, vkey)
        leaf = merkle.leaf_hash(body_file.read_bytes())
        merkle.check_inclusion(leaf, idx, head.size, hashes, head.root)
    except OSError as error:
        raise Invalid(f"{error.filename} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise Corrupt(f"The proof does not hold: {error}.", reason="ledger.proof") from error
    typer.echo(f"✓ entry {idx} of {head.size} in {head.origin}, root {head.root.hex()}")


@ledger.command("show")
def show(idx: int) -> None:
    """Print an entry."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        row = queries.entry(work, idx)
        box.out.show({"idx": row.idx, "leaf_hash": row.hash.hex(), **row.leaf})


@ledger.command("vkey")
def vkey() -> None:
    """Print the verifier key to hand to others."""
    with opened() as box:
        sys.stdout.write(box.signer.vkey + "\n")
