"""Names of files that others chose, which may be anything."""

from __future__ import annotations

import unicodedata

MAX_NAME = 200
"""Characters."""
_SHOWN = 10


def clean_name(name: str, fallback: str) -> str:
    """The name without folders, control and invisible characters, and with its end when it is cut."""
    name = printable(name.replace("\\", "/").rpartition("/")[2]).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    if len(name) > MAX_NAME and stem and len(suffix) <= 16:
        name = stem[: MAX_NAME - len(suffix) - 1] + dot + suffix
    return name[:MAX_NAME] or fallback


def printable(text: str) -> str:
    """One line, without the characters that only change how others look (Unicode's category C)."""
    kept = (" " if mark.isspace() else mark for mark in text)
    return " ".join("".join(mark for mark in kept if unicodedata.category(mark)[0] != "C").split())


def some(names: list[str]) -> str:
    """The first ten names, for a warning."""
    more = len(names) - _SHOWN
    return ", ".join(printable(name)[:MAX_NAME] for name in names[:_SHOWN]) + (
        f" and {more} more" if more > 0 else ""
    )
