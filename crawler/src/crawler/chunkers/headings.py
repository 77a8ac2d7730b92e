"""Chunks that follow the headings of the Markdown.

Its blocks are packed, for each heading path, into chunks up to the token limit. Only a block that is over
the limit by itself is cut: prose at the best boundary of its syntax, a fence between lines, a table between
rows, each piece under the table's header.
"""

from __future__ import annotations

from collections.abc import Iterator

from crawler.chunkers._chunker import PieceChunker
from crawler.chunkers._pieces import HeadingPath, Piece, Section, packed, under


class Headings(PieceChunker):
    """Chunks packed per heading path, tables cut between rows, exact offsets.

    The limit is exact for tokenizers that split at white space first (BERT's WordPiece); with others a chunk
    may be a few tokens over. A table's row that is over the limit by itself is a chunk by itself. Headings
    that take more than half of the limit lose their outermost. A title that takes more than three quarters
    by itself leaves a quarter to the content, over the limit.
    """

    def _pieces(self, markdown: str, title: str | None) -> Iterator[tuple[HeadingPath, Piece]]:
        for section in self._cutter.sections(markdown, title):
            pieces = packed(self._cut(markdown, section), section.room)
            for piece in self._cutter.overlapping(markdown, pieces, section.overlap):
                yield section.headings, piece

    def _cut(self, markdown: str, section: Section) -> Iterator[Piece]:
        """The blocks, each as one piece, or as many where it is over the limit.

        The headings of the section go with the first piece of what follows: they say nothing by themselves.
        """
        heads: list[Piece] = []
        taken = 0
        for block, tokens in section.blocks:
            if block.kind == "heading" and taken + tokens <= section.room // 2:
                heads.append(Piece(block.start, block.end, tokens))
                taken += tokens
            elif tokens <= section.room:
                yield from heads
                yield Piece(block.start, block.end, tokens)
                heads, taken = [], 0
            else:
                pieces = self._cutter.cut(markdown, block, section.room - taken)
                yield from under(heads, pieces, section.room)
                heads, taken = [], 0
        yield from heads
