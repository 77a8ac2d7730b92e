"""Chunks of whole sentences, packed up to the limit under each heading path."""

from __future__ import annotations

from collections.abc import Iterator

from crawler.chunkers._chunker import PieceChunker
from crawler.chunkers._pieces import HeadingPath, Piece, packed
from crawler.chunkers._sentences import units


class Sentence(PieceChunker):
    """Chunks as full as whole sentences make them, also across paragraphs, but never across headings.

    Only a sentence that is over the limit by itself is cut. Tables, code and the limit are as with
    ``headings``.
    """

    def _pieces(self, markdown: str, title: str | None) -> Iterator[tuple[HeadingPath, Piece]]:
        for section in self._cutter.sections(markdown, title):
            found = (piece for piece, _ in units(self._cutter, markdown, section))
            for piece in self._cutter.overlapping(markdown, packed(found, section.room), section.overlap):
                yield section.headings, piece
