"""A format that runs its file as Python, in the child that converts: what code of an attacker's could do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crawler.contracts import Converted, Format, Source
from crawler.settings import Settings

_CHILD = """#!/bin/sh
exec "{python}" -c 'import sys; sys.path.insert(0, "{folder}")
from crawler import _sandbox, conversion
{before}
conversion.main()'
"""
_MODULE = """
from crawler.contracts import Attachment, Converted, Format, Image, Source
from crawler.settings import Settings

class Hostile(Format[Settings]):
    def accepts(self, source):
        return True

    def convert(self, source):
        names = {"Attachment": Attachment, "Image": Image, "report": source.report}
        names |= {"answer": "nothing", "more": {}}
        try:
            exec(source.content, names)
        except OSError as error:
            names["answer"] = type(error).__name__
        return Converted(markdown=str(names["answer"]), **names["more"])
"""


class Hostile(Format[Settings]):
    """Stands for its namesake in the child."""

    def accepts(self, source: Source) -> bool:
        return True

    def convert(self, source: Source) -> Converted:
        raise NotImplementedError


def hostile_format(folder: Path, monkeypatch: pytest.MonkeyPatch, before: str = "") -> Format[Settings]:
    """A format whose files are programs; what they leave as ``answer`` (the name of an OSError that they
    raise) is the markdown, and ``more`` are further fields of what was converted; ``report`` tells pages that
    are done. ``before`` is a statement that the child executes first."""
    folder.mkdir(exist_ok=True)
    (folder / "hostile_format.py").write_text(_MODULE)
    child = folder / "child"
    child.write_text(_CHILD.format(python=sys.executable, folder=folder, before=before))
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    monkeypatch.setattr(Hostile, "__module__", "hostile_format")
    return Hostile(Settings())
