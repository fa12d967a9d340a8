"""Large pages: asked for once, by the same process, and never against an operator's wish."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stagerelease.engine import pages

SHOW = (
    "from stagerelease.engine import pages; import os; pages.begin_with_large_pages();"
    "print(os.getpid(), os.environ[pages.NAME], *__import__('sys').argv[1:])"
)


def begin(wish: str | None) -> tuple[int, list[str]]:
    """Return the process's number and what it prints, begun with ``wish`` in its environment."""
    environ = {name: value for name, value in os.environ.items() if name != pages.NAME}
    if wish is not None:
        environ[pages.NAME] = wish
    with subprocess.Popen(
        [sys.executable, "-c", SHOW, "a b", "--c"], env=environ, stdout=subprocess.PIPE, text=True
    ) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return process.pid, out.split(maxsplit=2)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_a_process_begins_anew_once_and_stays_the_same_one() -> None:
    pid, (number, wish, rest) = begin(None)
    assert (int(number), wish, rest.strip()) == (pid, pages.WISH, "a b --c")


def test_an_operators_own_wish_stays() -> None:
    _, (_, wish, _) = begin("glibc.malloc.arena_max=4")
    assert wish == "glibc.malloc.arena_max=4"
