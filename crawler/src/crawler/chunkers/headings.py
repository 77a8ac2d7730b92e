"""Chunks that follow the headings of the Markdown.

Its blocks are packed, for each heading path, into chunks up to the token limit. Only a block that is over
the limit by itself is cut: prose at the best boundary of its syntax, a fence between lines, a table between
rows, each piece under the table's header.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from crawler.blocks import Block, scan
from crawler.contracts import Chunk, Chunker, Page, Services
from crawler.settings import Settings

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter
    from tokenizers import Tokenizer

_COUNT_BATCH = 1024
_WINDOW = 8192
"""Characters that the splitter sees at once: its time grows with the square of a text without boundaries."""
_CHARACTERS_PER_TOKEN = 16
"""A token counts for at most so many characters: to WordPiece a word of any length is one unknown token."""


class HeadingsSettings(Settings):
    max_tokens: int = Field(default=230, ge=64, le=8192)
    """Tokens of a chunk together with its ``title > heading`` prefix, without the model's special tokens."""
    tokenizer: Path | None = None
    """A ``tokenizer.json``, that of the embedding model; all-MiniLM-L6-v2's when not given."""


@dataclass(slots=True)
class Piece:
    """What goes into one chunk whole."""

    start: int
    end: int
    tokens: int
    header: str = ""
    """The table header that the content repeats before the slice."""


class Headings(Chunker[HeadingsSettings]):
    """Chunks packed per heading path, tables cut between rows, exact offsets.

    The limit is exact for tokenizers that split at white space first (BERT's WordPiece); with others a chunk
    may be a few tokens over. Headings that take more than half of the limit lose their outermost. A title
    that takes more than three quarters by itself leaves a quarter to the content, over the limit.
    """

    def __init__(self, settings: HeadingsSettings) -> None:
        super().__init__(settings)
        self._splitters: dict[tuple[int, bool], MarkdownSplitter | TextSplitter] = {}

    async def chunk(
        self, markdown: str, pages: Sequence[Page], title: str | None, services: Services
    ) -> list[Chunk]:
        return await asyncio.to_thread(self._chunk, markdown, pages, title)

    def _chunk(self, markdown: str, pages: Sequence[Page], title: str | None) -> list[Chunk]:
        chunks: list[Chunk] = []
        starts = [page.start for page in pages]
        for headings, piece in self._pieces(markdown, title):
            first = bisect_right(starts, piece.start)
            last = bisect_right(starts, piece.end - 1)
            chunks.append(
                Chunk(
                    index=len(chunks),
                    start=piece.start,
                    end=piece.end,
                    content=piece.header + markdown[piece.start : piece.end],
                    headings=headings,
                    page_first=pages[first - 1].number if first else None,
                    page_last=pages[last - 1].number if last else None,
                )
            )
        return chunks

    def _pieces(self, markdown: str, title: str | None) -> Iterator[tuple[tuple[str, ...], Piece]]:
        sections = list(_sections(scan(markdown)))
        counts = iter(self._count([markdown[b.start : b.end] for _, blocks in sections for b in blocks]))
        for path, blocks in sections:
            headings, room = self._prefix(title, path)
            pieces: list[Piece] = []
            for block in blocks:
                tokens = next(counts)
                if tokens <= room:
                    pieces.append(Piece(block.start, block.end, tokens))
                else:
                    pieces += self._cut(markdown, block, room)
            for piece in _packed(pieces, room):
                yield headings, piece

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        if self.settings.tokenizer is None:
            from crawler.embedders._minilm import tokenizer

            return tokenizer()
        from tokenizers import Tokenizer

        found = Tokenizer.from_file(str(self.settings.tokenizer))
        found.no_truncation()
        found.no_padding()
        return found

    def _count(self, texts: Sequence[str]) -> list[int]:
        longest = self.settings.max_tokens * _CHARACTERS_PER_TOKEN
        counts: list[int] = []
        for start in range(0, len(texts), _COUNT_BATCH):
            batch = [text[:longest] for text in texts[start : start + _COUNT_BATCH]]
            found = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            counts += [len(encoding) for encoding in found]
        return [
            max(tokens, -(-len(text) // _CHARACTERS_PER_TOKEN))
            for text, tokens in zip(texts, counts, strict=True)
        ]

    def _prefix(self, title: str | None, path: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        """The headings that fit into half of the limit, and the tokens that are left to the content."""
        limit = self.settings.max_tokens
        while True:
            prefix = Chunk(index=0, start=0, end=0, content="", headings=path).indexed_text(title)
            (tokens,) = self._count([prefix])
            if tokens <= limit // 2 or not path:
                return path, max(limit - tokens, limit // 4)
            path = path[1:]

    def _cut(self, markdown: str, block: Block, room: int) -> list[Piece]:
        if block.kind == "table" and block.header_end < block.end:
            header = markdown[block.start : block.header_end]
            (tokens,) = self._count([header])
            if tokens <= room // 2:
                return self._cut_table(markdown, block, header, room - tokens)
        return self._split(markdown, block.start, block.end, room, prose=block.kind == "prose")

    def _cut_table(self, markdown: str, block: Block, header: str, room: int) -> list[Piece]:
        """Runs of rows; the first follows the header in the text, the others have it repeated before them."""
        rows = list(_lines(markdown, block.header_end, block.end))
        pieces: list[Piece] = []
        for (start, end), tokens in zip(rows, self._count([markdown[a:b] for a, b in rows]), strict=True):
            if tokens <= room:
                pieces.append(Piece(start, end, tokens))
            else:
                pieces += self._split(markdown, start, end, room, prose=False)
        packed = list(_packed(pieces, room))
        packed[0].start = block.start
        for piece in packed[1:]:
            piece.header = header
        for piece in packed:
            piece.tokens = self.settings.max_tokens  # full: what follows does not belong under this header
        return packed

    def _split(self, markdown: str, start: int, end: int, room: int, *, prose: bool) -> list[Piece]:
        room -= room % 8  # few different splitters: making one takes 16 ms
        splitter = self._splitter(room, prose=prose)
        longest = room * _CHARACTERS_PER_TOKEN
        spans: list[tuple[int, int]] = []
        for window, stop in _windows(markdown, start, end):
            for offset, text in splitter.chunk_indices(markdown[window:stop]):
                first, last = window + offset, window + offset + len(text)
                spans += [(cut, min(cut + longest, last)) for cut in range(first, last, longest)]
        counts = self._count([markdown[a:b] for a, b in spans])
        return [Piece(a, b, tokens) for (a, b), tokens in zip(spans, counts, strict=True)]

    def _splitter(self, room: int, *, prose: bool) -> MarkdownSplitter | TextSplitter:
        if (room, prose) not in self._splitters:
            from semantic_text_splitter import MarkdownSplitter, TextSplitter

            kind = MarkdownSplitter if prose else TextSplitter
            self._splitters[room, prose] = kind.from_huggingface_tokenizer(self._tokenizer, room)
        return self._splitters[room, prose]


def _windows(markdown: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """``start`` to ``end`` in windows, cut after a line or a word where there is one in the second half."""
    while end - start > _WINDOW:
        middle, stop = start + _WINDOW // 2, start + _WINDOW
        cut = markdown.rfind("\n", middle, stop) + 1 or markdown.rfind(" ", middle, stop) + 1 or stop
        yield start, cut
        start = cut
    yield start, end


def _packed(pieces: Sequence[Piece], room: int) -> Iterator[Piece]:
    """Neighbours joined as long as they fit."""
    current: Piece | None = None
    for piece in pieces:
        # Parts of one word have not the tokens of the word, so they stay apart. The white space between two
        # pieces has no tokens, but must not grow without end.
        if (
            current
            and current.end < piece.start
            and current.tokens + piece.tokens <= room
            and piece.end - current.start <= room * _CHARACTERS_PER_TOKEN
        ):
            current.end = piece.end
            current.tokens += piece.tokens
        else:
            if current:
                yield current
            current = piece
    if current:
        yield current


def _sections(blocks: Sequence[Block]) -> Iterator[tuple[tuple[str, ...], list[Block]]]:
    """The blocks under each heading path. A heading with nothing under it goes with what follows."""
    path: list[tuple[int, str]] = []
    section: list[Block] = []
    has_content = False
    for block in blocks:
        if block.kind == "heading":
            if has_content:
                yield tuple(text for _, text in path if text), section
                section, has_content = [], False
            while path and path[-1][0] >= block.level:
                path.pop()
            path.append((block.level, block.text))
        else:
            has_content = True
        section.append(block)
    if section:
        yield tuple(text for _, text in path if text), section


def _lines(markdown: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The lines of ``markdown[start:end]`` that are not blank, without their ends."""
    while start < end:
        stop = markdown.find("\n", start, end)
        stop = end if stop < 0 else stop
        if markdown[start:stop].strip():
            yield start, stop
        start = stop + 1
