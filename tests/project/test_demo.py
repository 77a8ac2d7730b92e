"""`make demo`: the story from an empty data directory to a cited, refused and streamed answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.proxy import ROOT
from tests.support.quickstart import variables


def test_the_demo_goes_through_with_every_step_checked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        env=variables(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("[ok]") >= 10
    assert done.stdout.endswith("Everything worked.\n")
