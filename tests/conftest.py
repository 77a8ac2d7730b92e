"""What tests share: one running `make run` for all that leave it as it is, and how they are run."""

from __future__ import annotations

import gc
import os
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.proxy import ROOT, STARTUP
from tests.support.quickstart import Quickstart, change, copy, quickstart

MAX_UPLOAD_BYTES = 200_000
TOGETHER = {
    "running": [
        "journeys/test_bad_input",
        "journeys/test_chat",
        "journeys/test_documents",
        "journeys/test_files_in_files",
        "journeys/test_hostile_files",
        "journeys/test_jobs",
        "journeys/test_life",
        "journeys/test_quickstart",
        "journeys/test_sync_and_backup",
        "project/test_architecture",
        "project/test_docs_examples",
        "project/test_readme",
    ],
    "apis": ["journeys/test_messages", "journeys/test_responses"],
    "matrix": ["journeys/test_audit", "journeys/test_rights_matrix"],
    "observed": ["journeys/test_exchanges", "journeys/test_traces"],
}
"""Files whose tests share a proxy: every process of pytest-xdist would start it anew."""
LONG = ("tests/journeys/", "tests/unit/worker/")
"""Folders of files that take long begin first: then the processes end together, on short files."""

os.environ["LITELLM_MODE"] = "PRODUCTION"  # else importing litellm reads the `.env` that `make run` writes
os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(STARTUP)])
gc.disable()  # while the tests are imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish() -> None:
    """What is there by now stays: the garbage collector need not look at it again and again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """A file's tests go to one process, and so do files that share a proxy."""
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    homes = {f"tests/{name}.py": shared for shared, names in TOGETHER.items() for name in names}

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return homes.get(file, file)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    """The sample installation with its sample documents, a small limit of uploads, and the tool that
    CONTRIBUTING.md shows, loaded from a package beside it."""
    folder = copy(tmp_path_factory.mktemp("running"))
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [tool] = re.findall(r"^ *```python\n(.*?)```", guide, re.DOTALL | re.MULTILINE)
    (folder / "acme").mkdir()
    (folder / "acme" / "__init__.py").touch()
    (folder / "acme" / "working_days.py").write_text(textwrap.dedent(tool), encoding="utf-8")
    change(
        folder / "config" / "tools.yaml",
        lambda content: content["tools"].append({"use": "acme.working_days", "allow": ["*"]}),
    )
    change(
        folder / "config" / "limits.yaml",
        lambda content: content["limits"].update(max_upload_bytes=MAX_UPLOAD_BYTES),
    )
    with quickstart(folder, {"PYTHONPATH": f"{folder}{os.pathsep}{STARTUP}"}) as started:
        yield started
