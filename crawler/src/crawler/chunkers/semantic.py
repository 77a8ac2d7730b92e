"""Chunks cut where the subject changes, by the similarity of the sentences' embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydantic import Field

from crawler.chunkers._chunker import chunks
from crawler.chunkers._pieces import ChunkSettings, Cutter, HeadingPath, Piece, packed
from crawler.chunkers._sentences import units
from crawler.contracts import Chunk, Chunker, Embedder, Page, Services
from crawler.errors import EmbeddingFailed

MAX_CHARACTERS = 2_000_000
"""Longer texts are cut as ``sentence`` cuts them: to embed each of their sentences would cost too much."""
_BATCH = 64


class SemanticSettings(ChunkSettings):
    breakpoint_percentile: int = Field(default=90, ge=50, le=99)
    """How dissimilar neighbouring sentences must be to be parted, among all neighbours of the document."""


@dataclass(slots=True)
class _Run:
    """The units under one heading path."""

    headings: HeadingPath
    room: int
    overlap: int
    units: list[tuple[Piece, bool]]


class Semantic(Chunker[SemanticSettings]):
    """Whole sentences of one subject, never across headings.

    Each sentence is embedded once by the collection's model, besides the embedding of the chunks. Where
    there is no such model, sentences are packed up to the limit. Tables, code and the limit are as with
    ``headings``.
    """

    def __init__(self, settings: SemanticSettings) -> None:
        super().__init__(settings)
        self._cutter = Cutter(settings)

    async def chunk(
        self, markdown: str, pages: Sequence[Page], title: str | None, services: Services
    ) -> list[Chunk]:
        breaks: set[int] = set()
        if services.embedder is not None and len(markdown) <= MAX_CHARACTERS:
            breaks = await self._breaks(markdown, title, services.embedder)
        return await asyncio.to_thread(lambda: chunks(markdown, pages, self._pieces(markdown, title, breaks)))

    def _runs(self, markdown: str, title: str | None) -> Iterator[_Run]:
        for section in self._cutter.sections(markdown, title):
            found = list(units(self._cutter, markdown, section))
            yield _Run(section.headings, section.room, section.overlap, found)

    def _pieces(
        self, markdown: str, title: str | None, breaks: set[int]
    ) -> Iterator[tuple[HeadingPath, Piece]]:
        for run in self._runs(markdown, title):
            for subject in _subjects([piece for piece, _ in run.units], breaks):
                pieces = packed(subject, run.room)
                for piece in self._cutter.overlapping(markdown, pieces, run.overlap):
                    yield run.headings, piece

    async def _breaks(self, markdown: str, title: str | None, embedder: Embedder) -> set[int]:
        """Where in the text another subject begins, in characters.

        Raises:
            EmbeddingFailed: The model did not answer as it should.
        """
        runs = await asyncio.to_thread(lambda: list(self._runs(markdown, title)))
        sentences = [piece for run in runs for piece, is_sentence in run.units if is_sentence]
        vectors: list[list[float]] = []
        for start in range(0, len(sentences), _BATCH):
            texts = [markdown[piece.start : piece.end] for piece in sentences[start : start + _BATCH]]
            vectors += await embedder.embed(texts)
        if len(vectors) != len(sentences):
            raise EmbeddingFailed
        by_start = {piece.start: vector for piece, vector in zip(sentences, vectors, strict=True)}
        return await asyncio.to_thread(_find_breaks, runs, by_start, self.settings.breakpoint_percentile)


def _subjects(pieces: Sequence[Piece], breaks: set[int]) -> Iterator[list[Piece]]:
    subject: list[Piece] = []
    for piece in pieces:
        if subject and piece.start in breaks:
            yield subject
            subject = []
        subject.append(piece)
    if subject:
        yield subject


def _find_breaks(runs: Sequence[_Run], vectors: dict[int, list[float]], percentile: int) -> set[int]:
    """The sentences that are least like the one before, each taken with its other neighbour."""
    import numpy as np

    distances: dict[int, float] = {}
    for run in runs:
        for before, after in pairwise(range(len(run.units))):
            if not (run.units[before][1] and run.units[after][1]):
                continue
            around = [
                np.sum([vectors[piece.start] for piece, is_sentence in part if is_sentence], axis=0)
                for part in (run.units[max(before - 1, 0) : after], run.units[after : after + 2])
            ]
            lengths = float(np.linalg.norm(around[0]) * np.linalg.norm(around[1]))
            likeness = float(around[0] @ around[1]) / lengths if lengths else 1.0
            distances[run.units[after][0].start] = 1.0 - likeness
    if not distances:
        return set()
    threshold = float(np.percentile(list(distances.values()), percentile))
    return {start for start, distance in distances.items() if distance > threshold}
