"""What a chunker does but for where it cuts: pieces of the text become chunks, in a thread."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from crawler.chunkers._pieces import ChunkSettings, Cutter, HeadingPath, Piece
from crawler.contracts import Chunk, Chunker, Page, Services
from crawler.errors import DocumentTooLarge

MAX_CHUNKS = 100_000
"""More than any pipeline allows; cutting stops here, whatever the text."""
MAX_SECONDS = 300.0
"""Wall time of cutting one text, in a thread that nobody can end from outside."""


class PieceChunker(Chunker[ChunkSettings]):
    """A chunker that needs the text alone to know where to cut."""

    def __init__(self, settings: ChunkSettings) -> None:
        super().__init__(settings)
        self._cutter = Cutter(settings)

    async def chunk(
        self, markdown: str, pages: Sequence[Page], title: str | None, services: Services
    ) -> list[Chunk]:
        return await asyncio.to_thread(lambda: chunks(markdown, pages, self._pieces(markdown, title)))

    @abstractmethod
    def _pieces(self, markdown: str, title: str | None) -> Iterator[tuple[HeadingPath, Piece]]:
        """The pieces in their order, each with the headings that it stands under."""


def chunks(markdown: str, pages: Sequence[Page], pieces: Iterable[tuple[HeadingPath, Piece]]) -> list[Chunk]:
    """The pieces under their headings as chunks with their pages.

    Raises:
        DocumentTooLarge: There are more than ``MAX_CHUNKS``, or it took longer than ``MAX_SECONDS``.
    """
    found: list[Chunk] = []
    deadline = time.monotonic() + MAX_SECONDS
    starts = [page.start for page in pages]
    for headings, piece in pieces:
        if len(found) == MAX_CHUNKS or time.monotonic() > deadline:
            raise DocumentTooLarge
        first, last = bisect_right(starts, piece.start), bisect_right(starts, piece.end - 1)
        found.append(
            Chunk(
                index=len(found),
                start=piece.start,
                end=piece.end,
                content=piece.header + markdown[piece.start : piece.end],
                headings=headings,
                page_first=pages[first - 1].number if first else None,
                page_last=pages[last - 1].number if last else None,
            )
        )
    return found
