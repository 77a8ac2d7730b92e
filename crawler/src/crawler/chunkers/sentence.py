"""Chunks of whole sentences, packed up to the limit under each heading path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from crawler.chunkers._pieces import ChunkSettings, Cutter, HeadingPath, Piece, chunks, packed
from crawler.chunkers._sentences import units
from crawler.contracts import Chunk, Chunker, Page, Services


class Sentence(Chunker[ChunkSettings]):
    """Chunks as full as whole sentences make them, also across paragraphs, but never across headings.

    Only a sentence that is over the limit by itself is cut. Tables, code and the limit are as with
    ``headings``.
    """

    def __init__(self, settings: ChunkSettings) -> None:
        super().__init__(settings)
        self._cutter = Cutter(settings)

    async def chunk(
        self, markdown: str, pages: Sequence[Page], title: str | None, services: Services
    ) -> list[Chunk]:
        return await asyncio.to_thread(lambda: chunks(markdown, pages, self._pieces(markdown, title)))

    def _pieces(self, markdown: str, title: str | None) -> Iterator[tuple[HeadingPath, Piece]]:
        for section in self._cutter.sections(markdown, title):
            found = (piece for piece, _ in units(self._cutter, markdown, section))
            for piece in self._cutter.overlapping(markdown, packed(found, section.room), section.overlap):
                yield section.headings, piece
