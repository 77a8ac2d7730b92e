"""Section titles of texts that are no Markdown, as headings of Markdown.

What Markdown would take for a heading or a fence, and is none, is escaped. Time is linear in the text.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"[ \t]*(```+|~~~+)(.*)")
_HEADING = re.compile(r"[ \t]*(?:#{1,6}(?:[ \t]|$)|```|~~~)")
_UNDERLINE = re.compile(r"[ \t]*(?:=+|-+)[ \t]*$")
_RST_RULE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_ADOC_TITLE = re.compile(r"(={1,6})[ \t]+(?=\S)")
_ADOC_RULE = re.compile(r"([=\-~^+])\1{2,}[ \t]*$")
_ADOC_VERBATIM = re.compile(r"(-{4,}|\.{4,}|\+{4,}|/{4,})[ \t]*$|(```+)[^`]*$")
_ORG_TITLE = re.compile(r"(\*{1,6})[ \t]+(?=\S)")
_UNDERLINE_DIFFERS = 2
"""Characters by which an underline may be longer or shorter than its title, as AsciiDoc had it."""


def with_headings(text: str, suffix: str) -> str:
    """The text with the headings of what its name says that it is."""
    read = _READERS.get(suffix, _plain)
    if read is _plain and "```" not in text and "~~~" not in text:
        return text
    return "\n".join(read(text.split("\n")))


def _plain(lines: list[str]) -> list[str]:
    """As Markdown, but ``~~~`` underlines a title and is no fence, and what nothing closes is none."""
    out: list[str] = []
    opened, mark = 0, ""
    for number, line in enumerate(lines):
        found = _FENCE.match(line)
        if mark:
            closes = found and found[1].startswith(mark) and not found[2].strip()
            mark = "" if closes else mark
        elif found and found[1][0] == "~":
            if not found[2].strip() and _is_title(lines, number):
                out[-1] = f"### {out[-1].strip()}"
                continue
            line = f"\\{line}"
        elif found and "`" not in found[2]:
            opened, mark = len(out), found[1]
        out.append(line)
    if mark:
        out[opened:] = [f"\\{line}" if _FENCE.match(line) else line for line in out[opened:]]
    return out


def _rst(lines: list[str]) -> list[str]:
    """A title is under, or between, lines of one character; their order tells the levels.

    https://docutils.sourceforge.io/docs/ref/rst/restructuredtext.html#sections
    """
    out: list[str] = []
    levels: dict[tuple[str, bool], int] = {}
    for number, line in enumerate(lines):
        title = lines[number - 1].strip() if number else ""
        if title and _RST_RULE.match(line) and not _RST_RULE.match(title):
            above = lines[number - 2].rstrip() if number > 1 else ""
            between = above == line.rstrip() and out[-2].rstrip() == above
            if between or not above or _RST_RULE.match(above):
                del out[-1 - between :]
                level = levels.setdefault((line[0], between), len(levels) + 1)
                out.append(f"{'#' * min(level, 6)} {title}")
                continue
        out.append(_escaped(line, title))
    return out


def _asciidoc(lines: list[str]) -> list[str]:
    """``== Title``, or a title above a line; blocks of code have none.

    https://docs.asciidoctor.org/asciidoc/latest/sections/titles-and-levels/
    """
    last = {line.rstrip(): number for number, line in enumerate(lines) if _ADOC_VERBATIM.match(line)}
    out: list[str] = []
    verbatim = ""
    for number, line in enumerate(lines):
        rule = line.rstrip()
        opening = _ADOC_VERBATIM.match(line)
        if verbatim:
            verbatim = "" if rule == verbatim else verbatim
        elif (under := _ADOC_RULE.match(line)) and _is_title(lines, number):
            out[-1] = f"{'#' * ('=-~^+'.index(under[1]) + 1)} {lines[number - 1].strip()}"
            continue
        elif opening:
            mark = opening[1] or opening[2]
            verbatim = mark if last.get(mark, 0) > number else ""
        elif title := _ADOC_TITLE.match(line):
            out.append(f"{'#' * len(title[1])} {line[title.end() :]}")
            continue
        out.append(_escaped(line, lines[number - 1] if number else ""))
    return out


def _org(lines: list[str]) -> list[str]:
    """``** Title``; https://orgmode.org/manual/Headlines.html."""
    out: list[str] = []
    before = ""
    for line in lines:
        title = _ORG_TITLE.match(line)
        out.append(f"{'#' * len(title[1])} {line[title.end() :]}" if title else _escaped(line, before))
        before = line
    return out


def _is_title(lines: list[str], number: int) -> bool:
    """Whether the line is about as long as the one above it, which stands by itself."""
    title = lines[number - 1].strip() if number else ""
    if not title or title[0] in "[.|" or (number > 1 and lines[number - 2].strip()):
        return False
    return abs(len(title) - len(lines[number].strip())) <= _UNDERLINE_DIFFERS


def _escaped(line: str, before: str) -> str:
    if _HEADING.match(line) or (before.strip() and _UNDERLINE.match(line)):
        return f"{line[: len(line) - len(line.lstrip())]}\\{line.lstrip()}"
    return line


_READERS = {".rst": _rst, ".rest": _rst, ".adoc": _asciidoc, ".asciidoc": _asciidoc, ".org": _org}
