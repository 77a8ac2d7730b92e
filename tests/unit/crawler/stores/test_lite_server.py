"""The embedded store's process: what may run at the same time in it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crawler.stores._lite_server import Servicer, serialised


class Meeting(Servicer):
    """Every call tells whether another one was inside at the same time."""

    def __init__(self, wait_s: float) -> None:
        self._barrier = threading.Barrier(2, timeout=wait_s)

    def _meet(self, request: Any, context: Any) -> bool:
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:
            return False
        return True

    Insert = Upsert = Delete = Flush = CreateIndex = DropCollection = LoadCollection = _meet
    Search = HybridSearch = Query = _meet


def met(servicer: Any, first: str, second: str) -> bool:
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(getattr(servicer, name), None, None) for name in (first, second)]
        return all(call.result(timeout=10) for call in calls)


@pytest.mark.parametrize(
    ("first", "second"),
    [("Upsert", "Flush"), ("Upsert", "Upsert"), ("Delete", "Flush"), ("Insert", "CreateIndex")],
)
def test_no_two_writes_run_at_once(first: str, second: str) -> None:
    assert not met(serialised(Meeting(0.1), threading.RLock()), first, second)


@pytest.mark.parametrize(
    ("first", "second"), [("Search", "Upsert"), ("HybridSearch", "Flush"), ("Query", "Query")]
)
def test_reads_run_beside_writes(first: str, second: str) -> None:
    assert met(serialised(Meeting(10), threading.RLock()), first, second)
