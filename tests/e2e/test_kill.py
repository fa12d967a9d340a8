"""kill -9 at any moment: no acknowledged decision is lost, and none is half there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from databases import PostgresServer, execute
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import upgrade
from stagerelease.db.work import Works
from stagerelease.ledger import fsck, merkle
from stagerelease.ledger import queries as ledger
from stagerelease.releases.tables import Hold

pytestmark = pytest.mark.e2e
KILLS = 40


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        found = f"sqlite:///{tmp_path / 'kill.sqlite3'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        admin = make_engine(server.database("postgres"), pool_size=1)
        execute(admin, "DROP DATABASE IF EXISTS kills WITH (FORCE)")
        execute(admin, "CREATE DATABASE kills")
        admin.dispose()
        found = server.database("kills")
    engine = make_engine(found, pool_size=1)
    upgrade(engine)
    engine.dispose()
    return found


def test_no_acknowledged_decision_is_lost(url):
    chance = random.Random(2019)
    decider = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("decider.py")), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    works = Works(make_engine(url, pool_size=2))
    acked: dict[int, int] = {}
    roots: dict[int, bytes] = {}
    try:
        for _ in range(KILLS):
            decider.stdin.write("go\n")
            decider.stdin.flush()
            pid, killed = 0, False
            for line in decider.stdout:
                word, *rest = line.split()
                if word == "pid":
                    pid = int(rest[0])
                elif word == "ack":
                    acked[int(rest[0])] = int(rest[1])
                    if pid and not killed:
                        time.sleep(chance.uniform(0, 0.08))
                        os.kill(pid, signal.SIGKILL)
                        killed = True
                elif word == "ended":
                    break
            with works.begin(read_only=True) as work:
                size = ledger.log_size(work)
                roots[size] = ledger.root_at(work, size)
    finally:
        decider.stdin.close()
        decider.wait(20)
    assert len(acked) >= KILLS
    with works.begin(read_only=True) as work:
        assert fsck.verify_all(work) == []
        rows = dict(work.session.execute(select(Hold.id, Hold.leaf_idx)).all())
        laid = [
            e.idx
            for e in ledger.entries(work, start=0, limit=100_000)
            if e.leaf["type"] == "hold.laid"
        ]
        for hold, leaf in acked.items():
            assert rows[hold] == leaf
        assert sorted(rows.values()) == laid  # a row for every leaf and a leaf for every row
        size = ledger.log_size(work)
        for old, root in roots.items():  # every root seen on the way is a root of this log
            proof = ledger.consistency(work, old, size)
            merkle.check_consistency(old, root, size, ledger.root_at(work, size), proof)
    works.engine.dispose()
