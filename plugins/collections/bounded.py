"""Values as JSON of a bounded size, in which what must not be kept is replaced before anything is cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

SLACK = 4096
"""What a pattern matches is found also where a cut goes through it, if it has at most so many characters."""
DEEP = 100
"""What is nested deeper is not kept."""
SHORT, FEW = 256, 32
"""Characters of a text, and fields of an object, that are not long."""


class Unfinished(str):
    """A text that went on, by `SLACK` characters longer than it may be: a pattern may match its last ones
    together with what followed."""

    __slots__ = ()


class Bounded:
    """Copies a value as JSON of a bounded size. What came last stays, and notes are in the place of what is
    left out.

    Args:
        max_bytes: Of the copy in UTF-8, but for the notes, of which there is one on each level at most.
        redact: What is shown of a text.
        theirs: Whether names and numbers are a client's, and texts therefore, too.
    """

    def __init__(
        self, max_bytes: int, redact: Callable[[str], str] = lambda text: text, *, theirs: bool = True
    ) -> None:
        self.cut = False
        self._left = max_bytes
        self._redact = redact
        self._theirs = theirs

    def copy(self, value: Any, depth: int = 0) -> Any:
        """As much of the value as there is room for; takes time for what it keeps, not for what it leaves."""
        if isinstance(value, dict | list) and depth > DEEP:
            self.cut = True
            return self._text("(nested too deep)")
        self._left -= 4  # what is around it
        if isinstance(value, dict):
            return self._fields(value, depth)
        if isinstance(value, list):
            return self._items(value, depth)
        if value is None or isinstance(value, bool):
            self._left -= 4
            return value
        if isinstance(value, int | float):
            return self._number(value)
        return self._text(value if isinstance(value, str) else str(value))

    def _fields(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        names = list(reversed(value))
        if len(names) <= FEW:  # a message's role stays where its text is cut
            names.sort(key=lambda name: _is_long(value[name]))
        kept: dict[str, tuple[str, Any]] = {}
        for name in names:
            if self._left <= 0:
                break
            shown = self._text(name) if self._theirs else name
            kept[name] = (shown, self.copy(value[name], depth + 1))
        left_out = len(value) - len(kept)
        self.cut = self.cut or left_out > 0
        note = {"(cut)": f"{left_out} fields"} if left_out else {}
        return note | dict(kept[name] for name in value if name in kept)

    def _items(self, value: list[Any], depth: int) -> list[Any]:
        kept: list[Any] = []
        for part in reversed(value):
            if self._left <= 0:
                self.cut = True
                kept.append(f"(cut: {len(value) - len(kept)} items)")
                break
            kept.append(self.copy(part, depth + 1))
        return kept[::-1]

    def _number(self, value: float) -> Any:
        """One that JSON does not know, or that no database and no reader can be expected to, is a text."""
        written = str(value)
        if (
            len(written) > 32
            or not math.isfinite(value)
            or (self._theirs and self._redact(written) != written)
        ):
            return self._text(written)
        self._left -= len(written)
        return value

    def _text(self, text: str) -> str:
        begun = text[: max(0, self._left) + SLACK]
        shown = self._redact(begun)
        if len(begun) < len(text) or isinstance(text, Unfinished):
            shown = shown[:-SLACK]
        encoded = shown.encode("utf-8", "replace")
        kept = encoded[: max(0, self._left)]
        self._left -= len(encoded) + 2
        if len(begun) == len(text) and len(kept) == len(encoded):
            return encoded.decode()
        self.cut = True
        size = "" if isinstance(text, Unfinished) else f": {len(text.encode('utf-8', 'replace'))} bytes"
        return f"{kept.decode('utf-8', 'ignore')}(cut{size})"


def _is_long(value: Any) -> bool:
    return isinstance(value, dict | list) or (isinstance(value, str) and len(value) > SHORT)
