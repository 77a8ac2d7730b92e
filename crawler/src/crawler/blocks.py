"""The blocks of a Markdown text, with exact offsets.

Less than CommonMark and GitHub's tables (https://spec.commonmark.org/0.31.2/, https://github.github.com/gfm/):
only what decides where a text may be cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_TEXT = re.compile(r"\S[^\n]*")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")

Kind = Literal["heading", "table", "fence", "prose"]


@dataclass(slots=True)
class Block:
    """A run of lines: ``markdown[start:end]``, without blank lines around it."""

    kind: Kind
    start: int
    end: int
    level: int = 0
    text: str = ""
    """Of a heading: its text."""
    header_end: int = 0
    """Of a table: where the rows begin."""


def scan(markdown: str) -> list[Block]:
    """The blocks in their order; together they hold every character that is not white space."""
    return list(stream(markdown))


def stream(markdown: str) -> Iterator[Block]:
    """The blocks one by one: a large text may have more of them than fit into memory."""
    scanner = _Scanner()
    end = -1
    for found in _TEXT.finditer(markdown):
        start = markdown.rfind("\n", max(end, 0), found.start()) + 1 or max(end, 0)
        if start > end + 1:
            scanner.leave()
        end = found.end()
        scanner.take(markdown[start:end], start, end)
        yield from scanner.finished()
    yield from scanner.blocks


class _Scanner:
    """Takes the lines that are not blank. String methods only: time stays linear, whatever the line."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.open: Block | None = None
        """The last of ``blocks``, while the next line may belong to it."""
        self.fence = ""
        self.last = ""
        self.last_start = 0
        """The last line of the open block, stripped, and where it starts."""

    def leave(self) -> None:
        """Blank lines: they end all but a fence."""
        if not self.fence:
            self.open = None

    def finished(self) -> list[Block]:
        """The blocks that no later line changes, which are given once."""
        finished = self.blocks[:-1]
        del self.blocks[:-1]
        return finished

    def take(self, line: str, start: int, end: int) -> None:
        text = line.strip()
        if self.fence and self.open:
            self.open.end = end
            if text.startswith(self.fence) and not text.strip(self.fence[0]):
                self.fence, self.open = "", None
        elif (level := _heading_level(text)) and not line.startswith(("    ", "\t")):
            self.blocks.append(Block("heading", start, end, level, _heading_text(text[level:])))
            self.open = None
        elif mark := _fence_mark(text):
            self._begin("fence", start, end)
            self.fence = mark
        elif self._is_underline(text):
            self._underline(text, end)
        elif self._is_delimiter(text):
            self._delimit(end)
        else:
            if self.open is None or (self.open.kind == "table" and "|" not in text):
                self._begin("prose", start, end)
            self.blocks[-1].end = end
            self.last, self.last_start = text, start

    def _begin(self, kind: Kind, start: int, end: int) -> None:
        self.open = Block(kind, start, end)
        self.blocks.append(self.open)

    def _is_underline(self, text: str) -> bool:
        """``===`` or ``---`` under a paragraph of one line makes it a heading (CommonMark 4.3)."""
        block = self.open
        if block is None or block.kind != "prose" or block.start != self.last_start:
            return False
        return not (text.strip("=") and text.strip("-")) and self.last[0] not in "-*+>|"

    def _underline(self, text: str, end: int) -> None:
        block = self.blocks[-1]
        block.kind, block.level, block.end = "heading", 1 if text[0] == "=" else 2, end
        block.text = _heading_text(self.last)
        self.open = None

    def _is_delimiter(self, text: str) -> bool:
        """``|---|---|`` under a line with a bar begins a table's rows (GFM 4.10)."""
        block = self.open
        if block is None or block.kind != "prose" or "|" not in self.last:
            return False
        return "|" in text and "-" in text and not text.strip("|-: \t")

    def _delimit(self, end: int) -> None:
        block = self.blocks[-1]
        if block.start != self.last_start:  # the header is the last line of a paragraph
            block.end = self.last_start - 1
            self._begin("table", self.last_start, end)
            block = self.blocks[-1]
        block.kind, block.end, block.header_end = "table", end, end + 1


def _heading_level(text: str) -> int:
    level = len(text) - len(text.lstrip("#")) if text[0] == "#" else 0
    return level if level <= 6 and (len(text) == level or text[level] in " \t") else 0


def _heading_text(text: str) -> str:
    """The text without the closing ``##`` and without marks of emphasis, code and links."""
    text = text.strip()
    without = text.rstrip("#")
    text = without.rstrip() if not without or without[-1] in " \t" else text
    return _LINK.sub(r"\1", text).replace("**", "").replace("`", "").strip("*_ \t")


def _fence_mark(text: str) -> str:
    for character in "`~":
        if text.startswith(character * 3):
            mark = text[: len(text) - len(text.lstrip(character))]
            return "" if character == "`" and "`" in text[len(mark) :] else mark
    return ""
