"""Chunks of one size, whatever the headings: only tables keep their rows and header together."""

from __future__ import annotations

import re
from collections.abc import Iterator

from crawler.blocks import stream
from crawler.chunkers._chunker import PieceChunker
from crawler.chunkers._pieces import HeadingPath, Piece, packed, under

_WORD = re.compile(r"\S+")


class Fixed(PieceChunker):
    """Chunks of ``max_tokens`` in whole words, each repeating ``overlap_tokens`` of the one before it.

    They carry no headings, as one may reach over several. The limit is as exact as with ``headings``.
    """

    def _pieces(self, markdown: str, title: str | None) -> Iterator[tuple[HeadingPath, Piece]]:
        headings, room, overlap = self._cutter.room(title, ())
        pieces = packed(self._cut(markdown, room), room)
        for piece in self._cutter.overlapping(markdown, pieces, overlap):
            yield headings, piece

    def _cut(self, markdown: str, room: int) -> Iterator[Piece]:
        """Words, and tables. The headings above a table that is cut go with its first piece."""
        heads: list[Piece] = []
        taken = 0
        for block in stream(markdown):
            start = heads[0].start if heads else block.start
            if block.kind in {"heading", "table"}:
                (whole,) = self._cutter.measured(markdown, [(block.start, block.end)])
            if block.kind == "heading" and taken + whole.tokens <= room // 2:
                heads.append(whole)
                taken += whole.tokens
                continue
            if block.kind != "table":
                yield from self._words(markdown, start, block.end, room)
            elif whole.tokens <= room:
                yield from self._words(markdown, start, block.start, room)
                yield whole
            else:
                yield from under(heads, self._cutter.cut(markdown, block, room - taken), room)
            heads, taken = [], 0
        if heads:
            yield from self._words(markdown, heads[0].start, heads[-1].end, room)

    def _words(self, markdown: str, start: int, end: int, room: int) -> Iterator[Piece]:
        words = (match.span() for match in _WORD.finditer(markdown, start, end))
        for word in self._cutter.measured(markdown, words):
            if word.tokens <= room:
                yield word
            else:
                yield from self._cutter.split(markdown, word.start, word.end, room, prose=False)
