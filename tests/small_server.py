"""Serves the small engine as ``stagerelease infer`` serves the real one: for tests of processes.

python tests/small_server.py unix:/path/infer.sock [seconds per step] [grace]
"""

from __future__ import annotations

import sys
from pathlib import Path

from small_engine import SmallEngine
from stagerelease.engine.serving import bind_socket, serve


def main(where: str, step: str = "0.02", grace: str = "10") -> None:
    engine = SmallEngine(step=float(step), grace=float(grace))
    listener = bind_socket(Path(where.removeprefix("unix:")))
    serve(engine, listener, secret=None, grace=float(grace))


if __name__ == "__main__":
    main(*sys.argv[1:])
