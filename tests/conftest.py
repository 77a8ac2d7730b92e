"""What tests of several rooms share: one running `make run` for all that leave it as it is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

import pytest

from tests.support.proxy import ROOT
from tests.support.quickstart import Quickstart, change, copy, quickstart

MAX_UPLOAD_BYTES = 200_000


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
    with quickstart(folder, {"PYTHONPATH": str(folder)}) as started:
        yield started
