"""A log for tests: who acts in it, how it is filled and signed, and what its check says."""

from __future__ import annotations

from dataclasses import replace

from stagerelease.kernel.actor import SYSTEM
from stagerelease.ledger import fsck, notes, service
from stagerelease.ledger.signer import LogSigner

ANN = replace(SYSTEM, id="per_ann")
ORIGIN = "log.example/one"
SKEY, VKEY = notes.generate_key(ORIGIN)
SIGNER = LogSigner(origin=ORIGIN, skey=SKEY, vkey=VKEY)


def add(work, n, **more):
    return service.append(work, type="thing.done", subject=f"thing:{n}", detail={"n": n}, **more)


def fill(works, count):
    for n in range(count):
        with works.begin(ANN) as work:
            add(work, n, private=n % 2 == 0)


def sign(works):
    with works.begin(SYSTEM, quiet=True) as work:
        return service.sign_checkpoint(work, SIGNER)


def findings(works):
    with works.begin(read_only=True) as work:
        return fsck.verify_all(work, vkey=VKEY)


def damaged(works, do, *statements):
    """Run ``statements`` and then ``do(work)`` in one Work that is rolled back."""
    with works.begin(ANN, dry_run=True) as work:
        for statement in statements:
            work.session.execute(statement)
        do(work)


def make_log(works):
    """Thirty-two entries, some of them bulk, with checkpoints at 5, 20 and 32."""
    fill(works, 5)
    sign(works)
    with works.begin(ANN) as work:
        for n in range(5, 20):
            service.enqueue_bulk(work, type="thing.seen", subject=f"thing:{n}", detail={"n": n})
    with works.begin(SYSTEM, quiet=True) as work:
        assert service.sequence_pending(work) == 15
    sign(works)
    with works.begin(ANN) as work:
        for n in range(20, 32):
            add(work, n, prev_state="a", new_state="b", policy_sha256="0" * 64)
    sign(works)
    return works
