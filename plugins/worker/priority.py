"""Chats go first: what a process of ours that computes leaves to the proxy on the same machine."""

from __future__ import annotations

import contextlib
import os
import sys

NICENESS = 10


def yield_to_chats(*, beside_proxy: bool) -> None:
    """Be nice, and beside a proxy leave one processor to it, where there are several; children inherit both.

    Niceness divides a processor, but whoever wakes up still waits for the end of somebody's turn (some
    milliseconds, several times in a chat).
    """
    os.nice(NICENESS)
    if beside_proxy and sys.platform == "linux":
        processors = sorted(os.sched_getaffinity(0))
        with contextlib.suppress(OSError):  # forbidden here, or they changed in this moment
            os.sched_setaffinity(0, processors[1:] or processors)
