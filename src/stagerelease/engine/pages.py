"""Large pages for weights, and giving memory back.

Every step reads all weights, and with small pages much of its time goes into looking up where they
lie (measured at 124M in fp32: 20 ms a step against 14).
"""

from __future__ import annotations

import ctypes
import os
import sys

NAME = "GLIBC_TUNABLES"
WISH = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
"""Ask for large pages where blocks are large; from one arena, since others never ask."""


def begin_with_large_pages() -> None:
    """Start this process anew, once, with glibc told to ask the system for large pages.

    glibc reads such wishes when a process begins and at no other time. Does nothing on other
    systems, and where an operator has tuned glibc already.
    """
    if sys.platform != "linux" or NAME in os.environ:
        return
    os.environ[NAME] = WISH
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same command


def give_back() -> None:
    """Return to the system what lies free between what is in use (``malloc_trim(3)``).

    What a model left behind is in pieces among what others allocated meanwhile: glibc keeps them,
    and a process whose models come and go would grow without holding more. Does nothing where the
    C library has no such call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
