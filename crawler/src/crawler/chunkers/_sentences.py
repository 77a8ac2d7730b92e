"""Sentences, told apart by their punctuation (a simple case of https://unicode.org/reports/tr29/)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from crawler.blocks import Block
from crawler.chunkers._pieces import Cutter, Piece, Section, lines, under

# Words, where Chinese and Japanese full stops end one as well. Its time is linear: what the first alternative
# reads in vain the second takes whole.
_WORD = re.compile(r"[^\s。！？]*[。！？]+[」』”’）]*|[^\s。！？]+")
_CLOSERS = "\"'»”’)]*_`」』）"
_STOPS = (".", "!", "?", "…", "。", "！", "？")
_LIST_MARKS = ("- ", "* ", "+ ")
_ABBREVIATIONS = (
    *(
        "abb.",
        "abs.",
        "art.",
        "bzw.",
        "ca.",
        "cf.",
        "dr.",
        "e.g.",
        "etc.",
        "fig.",
        "i.e.",
        "inc.",
        "ltd.",
        "mr.",
    ),
    *("mrs.", "ms.", "nr.", "pp.", "prof.", "sec.", "st.", "usw.", "vgl.", "vs.", "z.b."),
)
_LONGEST_LOOK = 40
"""Characters at a word's end that are looked at."""


def units(cutter: Cutter, markdown: str, section: Section) -> Iterator[tuple[Piece, bool]]:
    """The section's sentences, and its other blocks; with whether it is a sentence.

    A block that is no prose is whole where it fits, and else cut; so is a sentence. The headings of the
    section go with the first piece of what is cut: they say nothing by themselves.
    """
    heads: list[Piece] = []
    taken = 0
    for block, tokens in section.blocks:
        if block.kind == "heading" and taken + tokens <= section.room // 2:
            heads.append(Piece(block.start, block.end, tokens))
            taken += tokens
            continue
        is_sentence = block.kind == "prose"
        whole = (
            cutter.measured(markdown, sentences(markdown, block.start, block.end))
            if is_sentence
            else [Piece(block.start, block.end, tokens)]
        )
        for piece in whole:
            if piece.tokens <= section.room:
                yield from ((head, False) for head in heads)
                yield piece, is_sentence
            else:
                found = _cut(cutter, markdown, block, piece, section.room - taken)
                yield from ((part, is_sentence) for part in under(heads, found, section.room))
            heads, taken = [], 0
    yield from ((head, False) for head in heads)


def _cut(cutter: Cutter, markdown: str, block: Block, piece: Piece, room: int) -> Iterator[Piece]:
    if block.kind == "prose":
        return cutter.split(markdown, piece.start, piece.end, room, prose=True)
    return cutter.cut(markdown, block, room)


def sentences(markdown: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The sentences of a paragraph, without the white space between them; items of lists by themselves."""
    first: int | None = None
    stop = start
    for line, line_end in lines(markdown, start, end):
        if first is not None and _is_item(markdown, line):
            yield first, stop
            first = None
        for match in _WORD.finditer(markdown, line, line_end):
            first = match.start() if first is None else first
            stop = match.end()
            if _ends_sentence(markdown[max(match.start(), stop - _LONGEST_LOOK) : stop]):
                yield first, stop
                first = None
    if first is not None:
        yield first, stop


def _ends_sentence(word: str) -> bool:
    word = word.rstrip(_CLOSERS)
    if not word.endswith(_STOPS):
        return False
    lowered = word.lower().lstrip("([\"'*_")
    # "3. Mai", "A. Lovelace": a number or an initial before the point does not end one.
    return lowered not in _ABBREVIATIONS and not (word[-1] == "." and len(lowered) < 3 and lowered[0] != ".")


def _is_item(markdown: str, line: int) -> bool:
    head = markdown[line : line + 40].lstrip()
    number, point, rest = head.partition(".")
    return head.startswith(_LIST_MARKS) or (bool(point) and number.isdecimal() and rest.startswith(" "))
