"""Makes decisions as fast as it can and acknowledges each after its commit; made to be killed.

Each line on stdin forks a child that lays holds for ever and writes ``ack <hold> <leaf>`` after
each commit. Forking from one prepared process makes forty kills cheap.
"""

from __future__ import annotations

import os
import sys

from stagerelease.db.engine import make_engine
from stagerelease.db.work import Works
from stagerelease.kernel.actor import OPERATOR
from stagerelease.releases import service as releases


def decide(url: str) -> None:
    works = Works(make_engine(url, pool_size=1))
    while True:
        with works.begin(OPERATOR) as work:
            hold = releases.lay_hold(
                work, scope="everything", scope_id=None, reason="A decision to be kept."
            )
        os.write(1, f"ack {hold.id} {hold.leaf_idx}\n".encode())


def main() -> None:
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            decide(sys.argv[1])
        os.write(1, f"pid {pid}\n".encode())
        os.waitpid(pid, 0)
        os.write(1, b"ended\n")


if __name__ == "__main__":
    main()
