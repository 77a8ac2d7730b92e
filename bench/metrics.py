"""What our metrics cost (`python -m bench.metrics`): what a chat counts, counted again and again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from plugins.core.metrics import (
    SEARCHES,
    SIGN_INS,
    STAGE_SECONDS,
    TOOL_RUNS,
    answered,
    counted,
)
from plugins.core.telemetry import stage

ROUNDS, TIMES = 20, 2_000
STAGES = ("auth", "tool", "search", "rights", "embed", "store")


def plain_chat() -> None:
    """A chat without our tools: only who asks is counted."""
    with counted(SIGN_INS, "local"):
        STAGE_SECONDS.labels("auth").observe(0.001)


def chat_with_a_search() -> None:
    with counted(SIGN_INS, "local"), counted(TOOL_RUNS, "search_documents"), counted(SEARCHES) as outcome:
        outcome.result = "found"
        for stage in STAGES:
            STAGE_SECONDS.labels(stage).observe(0.02)
    answered(2, given=8, cited=2, limit=None)


def one_stage() -> None:
    """A stage of a request while no traces are sent."""
    with stage("embed"):
        pass


def microseconds(action: Callable[[], None]) -> float:
    """Of one call; the median of rounds."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(TIMES):
            action()
        found.append((time.process_time() - began) / TIMES * 1e6)
    return statistics.median(found)


if __name__ == "__main__":
    for action in (plain_chat, chat_with_a_search, one_stage):
        print(f"{action.__name__.replace('_', ' ')}: {microseconds(action):.1f} us")
