"""What a worker leaves to the proxy on the same machine, seen on a real child."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crawler.supervisor import Supervisor
from plugins.worker.priority import NICENESS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processors and sessions are Linux's")

REPORT = """
import os, sys
from plugins.worker.priority import yield_to_chats
before = sorted(os.sched_getaffinity(0))
yield_to_chats(beside_proxy=sys.argv[1] == "beside")
print(os.getpriority(os.PRIO_PROCESS, 0), before, sorted(os.sched_getaffinity(0)), sep=";")
"""


def seen(where: str) -> tuple[int, str, str]:
    """Niceness, the processors before, the processors after."""
    ran = subprocess.run([sys.executable, "-c", REPORT, where], capture_output=True, text=True, check=True)
    niceness, before, after = ran.stdout.strip().split(";")
    return int(niceness), before, after


def test_beside_a_proxy_it_is_nice_and_leaves_one_of_several_processors() -> None:
    niceness, before, after = seen("beside")
    processors = sorted(os.sched_getaffinity(0))
    assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    assert before == str(processors)
    assert after == str(processors[1:] or processors)


def test_by_itself_it_is_nice_on_all_processors() -> None:
    niceness, before, after = seen("alone")
    assert niceness > os.getpriority(os.PRIO_PROCESS, 0)
    assert before == after


def test_a_child_is_scheduled_with_its_parent_and_spared_by_its_ctrl_c(tmp_path: Path) -> None:
    """In a session of its own its niceness would not count (sched(7), autogroup)."""
    told = tmp_path / "told"
    program = f"import os; open({str(told)!r}, 'w').write(f'{{os.getsid(0)}} {{os.getpgid(0)}}\\n'); input()"
    supervisor = Supervisor([sys.executable, "-c", program], tmp_path / "supervisor", "a child")
    supervisor.start()
    try:
        deadline = time.monotonic() + 30
        while not (told.exists() and told.read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        supervisor.stop()
    session, group = map(int, told.read_text().split())
    assert session == os.getsid(0)
    assert group != os.getpgid(0)
