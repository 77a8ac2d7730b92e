"""Finding citations in a model's Markdown while it streams.

Code, links and escaped brackets are text: what looks like a citation there is none. The grammar is that of
CommonMark (https://spec.commonmark.org/0.31.2/), simplified where a stream cannot wait: a code span ends
with its line, and a fence may be indented as deep as it likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_HELD = 80
"""Characters from a citation's opening bracket to its closing one."""
MAX_RANGE = 50
"""Of a wider range only the two ends count."""

_SPACE = r"[ \t\u00a0\u3000]{0,3}"
_DASH = r"[-\u2010-\u2015\u2212\uff0d~\uff5e]"
_SEPARATOR = r"[,;\uff0c\uff1b\u3001]"
_OPENING = "[\uff3b\u3010"
_OPEN, _CLOSE = r"[\[\uff3b\u3010]", r"[\]\uff3d\u3011]"
_ITEM = rf"\^?\d{{1,6}}(?:{_SPACE}{_DASH}{_SPACE}\d{{1,6}})?"
_SOURCE = r"(?P<source>(?P<part>:\d{1,6})?\u2020[^\]\uff3d\u3011\n]{0,80})?"
_ITEMS = rf"{_ITEM}(?:{_SPACE}{_SEPARATOR}{_SPACE}{_ITEM})*"
MARK = re.compile(rf"{_OPEN}{_SPACE}(?P<items>{_ITEMS}){_SPACE}{_SOURCE}{_SPACE}{_CLOSE}")
"""``[1]``, ``[1, 2]``, ``[1-3]``, ``[^1]``, full-width brackets and digits, and ``【1†source】``."""
_NUMBERS = re.compile(rf"(\d{{1,6}})(?:{_SPACE}{_DASH}{_SPACE}(\d{{1,6}}))?")
OPENED = re.compile(
    rf"{_OPEN}[\d \t\u00a0\u3000^:,;\uff0c\uff1b\u3001\-\u2010-\u2015\u2212\uff0d~\uff5e]*"
    r"(?:\u2020[^\]\uff3d\u3011\n]*)?\Z"
)
"""The end of a text that may be the beginning of a citation."""

_TARGET = r"(?:[</#]|\.{1,2}/|www\.|[a-z][a-z0-9+.-]{0,11}:\S)"
_TARGET_BEGUN = r"(?:\.{1,2}|[a-z][a-z0-9+.-]{0,11}:?)?\Z"
_LINK = re.compile(rf"\({_TARGET}|\{{", re.IGNORECASE)
_LINK_BEGUN = re.compile(rf"\Z|\({_TARGET_BEGUN}", re.IGNORECASE)
_DEFINITION = re.compile(rf":[ \t]{{0,3}}{_TARGET}", re.IGNORECASE)
_DEFINITION_BEGUN = re.compile(rf":[ \t]{{0,3}}{_TARGET_BEGUN}", re.IGNORECASE)

_SPECIAL = re.compile(r"[\[\uff3b\u3010`~\\\n]")
_IN_SPAN = re.compile(r"[`\n]")
_LINE_BEGUN = re.compile(r"[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t][ \t>]*){0,4}")
"""What may stand before a fence: the signs of quotes and lists."""
_MAX_LINE = 200
"""Characters of a line's beginning that are looked at."""


class Mark(NamedTuple):
    """A citation as the model wrote it."""

    text: str
    numbers: tuple[int, ...]
    """In its order, each once; none where it is in a form that names no passage of ours."""


Piece = str | Mark


def numbers_of(mark: re.Match[str]) -> tuple[int, ...]:
    """The numbers that a match of `MARK` names."""
    if mark["part"]:  # a model's own place in its own search, not a number of ours
        return ()
    numbers: list[int] = []
    for first, last in _NUMBERS.findall(mark["items"]):
        low, high = int(first), int(last or first)
        numbers += range(low, high + 1) if 0 <= high - low < MAX_RANGE else (low, high)
    return tuple(dict.fromkeys(numbers))


class MarkScanner:
    """Takes a text in any pieces; gives the same citations, and the same text between them, for any cut."""

    def __init__(self) -> None:
        self.held = ""
        """Given, but not yet told what it is."""
        self._line = ""
        """The beginning of the current line."""
        self._escaped = False
        self._run = ""
        """Backticks or tildes at the end of what was given: the run may go on."""
        self._before = ""
        """The line before that run."""
        self._span = 0
        """Backticks around the code span that the text is in."""
        self._fence = ""
        """The sign and length of the fence that the text is in."""
        self._info = False
        """In the fence's first line; a backtick there shows that one of backticks is none."""

    def feed(self, text: str, *, last: bool = False) -> Iterator[Piece]:
        """The pieces that are certain after `text`; with `last` there is no more to come."""
        text, self.held = self.held + text, ""
        at = begin = 0
        while at < len(text):
            mark = None
            if self._run and text[at] != self._run[0]:
                self._end_run()
            if text[at] in _OPENING and not (self._fence or self._span or self._escaped):
                mark, step = self._bracket(text, at, last=last)
                if not step:
                    break
            else:
                step = self._step(text, at)
            self._passed(text, at, at + step)
            at += step
            if mark is not None:
                if begin < at - step:
                    yield text[begin : at - step]
                yield mark
                begin = at
        self.held = text[at:]
        if begin < at:
            yield text[begin:at]

    def _step(self, text: str, at: int) -> int:
        """How many characters are of one kind: a run of signs, a part of code, a part of text."""
        sign = text[at]
        if self._run or (sign == "`" and (self._span or self._in_doubt)):
            return self._in_run(text, at)
        if self._fence:
            return self._in_fence(text, at)
        if self._span:
            return self._until(_IN_SPAN, text, at)
        if self._escaped:
            self._escaped = False
            return 1
        if sign in "`~":
            return self._in_run(text, at)
        if sign == "\\":
            self._escaped = True
            return 1
        return self._until(_SPECIAL, text, at)

    def _bracket(self, text: str, at: int, *, last: bool) -> tuple[Mark | None, int]:
        """The citation at an opening bracket, and how many characters are certain; none = more is needed."""
        mark = MARK.match(text, at, at + MAX_HELD)
        if mark is None:
            rest = text[at : at + MAX_HELD]
            waiting = not last and len(rest) < MAX_HELD and OPENED.match(rest)
            return None, 0 if waiting else 1
        defines = not self._line.strip(" >")
        link = _LINK.match(text, mark.end()) or (defines and _DEFINITION.match(text, mark.end()))
        if link:
            return None, len(mark[0])
        begun = _LINK_BEGUN.match(text, mark.end()) or (defines and _DEFINITION_BEGUN.match(text, mark.end()))
        if begun and not last:
            return None, 0
        return Mark(mark[0], numbers_of(mark)), len(mark[0])

    @staticmethod
    def _until(sign: re.Pattern[str], text: str, at: int) -> int:
        """Characters up to the next sign; a newline is a step of its own."""
        found = sign.search(text, at)
        return max(1, (found.start() if found else len(text)) - at)

    def _in_run(self, text: str, at: int) -> int:
        if not self._run:
            self._before = self._line
        end = at
        while end < len(text) and text[end] == text[at]:
            end += 1
        self._run += text[at:end]
        return end - at

    def _in_fence(self, text: str, at: int) -> int:
        if text[at] == "\n":
            return 1
        found = text.find("\n", at)
        end = len(text) if found < 0 else found
        if self._in_doubt and "`" in text[at:end]:
            end = text.index("`", at)
        return end - at

    @property
    def _in_doubt(self) -> bool:
        return self._info and self._fence[0] == "`"

    def _end_run(self) -> None:
        """The run is whole: it opens or closes code, or is text."""
        run, self._run = self._run, ""
        if self._span or self._in_doubt:
            opened = self._span or len(self._fence)
            self._fence, self._info = "", False
            self._span = 0 if len(run) == opened else opened
        elif len(run) >= 3 and _LINE_BEGUN.fullmatch(self._before):
            self._fence, self._info = run, True
        elif run[0] == "`":
            self._span = len(run)

    def _passed(self, text: str, at: int, end: int) -> None:
        """Keep the line, and end with it what ends with a line."""
        if text[at] != "\n":
            if (room := _MAX_LINE - len(self._line)) > 0:
                self._line += text[at : min(end, at + room)]
            return
        self._escaped, self._span = False, 0
        if self._info:
            self._info = False
        elif self._fence:
            closing = self._line.strip(" \t>")
            if closing and not closing.strip(self._fence[0]) and len(closing) >= len(self._fence):
                self._fence = ""
        self._line = ""
