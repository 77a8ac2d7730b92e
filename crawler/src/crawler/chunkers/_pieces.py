"""What all chunkers share: sections under headings, pieces within the token limit, tables cut between rows.

Everything is read as a stream, and takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, islice, pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pydantic import Field, model_validator

from crawler.blocks import Block, stream
from crawler.contracts import Chunk
from crawler.settings import Settings

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter
    from tokenizers import Tokenizer

T = TypeVar("T")
HeadingPath: TypeAlias = tuple[str, ...]

CHARACTERS_PER_TOKEN = 16
"""A token counts for at most so many characters: to WordPiece a word of any length is one unknown token."""
ROW_CHARACTERS = 8_000
"""A longer row of a table is cut after all: no model reads it whole, and the store would refuse it."""
HEADER_CHARACTERS = 4_000
"""A longer header of a table is not repeated."""

_COUNT_BATCH = 1024
_WINDOW = 8192
"""Characters that the splitter sees at once: its time grows with the square of a text without boundaries."""
_MAX_HEADINGS = 1000
"""Headings with nothing under them that are held back, to go with what follows."""
_SPACE = re.compile(r"\s+")


class ChunkSettings(Settings):
    max_tokens: int = Field(default=230, ge=64, le=8192)
    """Tokens of a chunk together with its ``title > heading`` prefix, without the model's special tokens."""
    overlap_tokens: int = Field(default=0, ge=0, le=4096)
    """Tokens that a chunk repeats of the one before it, in whole words; none across headings and tables."""
    tokenizer: Path | None = None
    """A ``tokenizer.json``, that of the embedding model; all-MiniLM-L6-v2's when not given."""

    @model_validator(mode="after")
    def _leaves_room(self) -> ChunkSettings:
        if self.overlap_tokens > self.max_tokens // 2:
            raise ValueError("overlap_tokens may be at most half of max_tokens")
        return self


@dataclass(slots=True)
class Piece:
    """What goes into one chunk whole."""

    start: int
    end: int
    tokens: int
    header: str = ""
    """The table header that the content repeats before the slice."""
    alone: bool = False
    """Of a table that is cut: nothing else is packed with it, and nothing of it is repeated."""


@dataclass(slots=True)
class Section:
    """The blocks under one heading path, each with its tokens."""

    headings: HeadingPath
    room: int
    """Tokens that the prefix and the overlap leave."""
    overlap: int
    blocks: Iterable[tuple[Block, int]]


class Cutter:
    """Counts and cuts by the tokenizer that the settings name."""

    def __init__(self, settings: ChunkSettings) -> None:
        self.settings = settings
        self._splitters: dict[tuple[int, bool], MarkdownSplitter | TextSplitter] = {}

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

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        longest = self.settings.max_tokens * CHARACTERS_PER_TOKEN
        counts: list[int] = []
        for start in range(0, len(texts), _COUNT_BATCH):
            batch = [text[:longest] for text in texts[start : start + _COUNT_BATCH]]
            found = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            counts += [len(encoding) for encoding in found]
        return [
            max(tokens, -(-len(text) // CHARACTERS_PER_TOKEN))
            for text, tokens in zip(texts, counts, strict=True)
        ]

    def measured(self, markdown: str, spans: Iterable[tuple[int, int]]) -> Iterator[Piece]:
        """The spans as pieces, counted in batches."""
        for batch in _batched(spans):
            counts = self.count([markdown[start:end] for start, end in batch])
            for (start, end), tokens in zip(batch, counts, strict=True):
                yield Piece(start, end, tokens)

    def sections(self, markdown: str, title: str | None) -> Iterator[Section]:
        """The blocks by heading path. The blocks of a section are to be read before the next section is."""
        counted = self._counted(markdown, _placed(stream(markdown)))
        for (_, path), items in groupby(counted, key=itemgetter(0, 1)):
            headings, room, overlap = self.room(title, path)
            yield Section(headings, room, overlap, (item[2:] for item in items))

    def _counted(
        self, markdown: str, placed: Iterator[tuple[int, HeadingPath, Block]]
    ) -> Iterator[tuple[int, HeadingPath, Block, int]]:
        for batch in _batched(placed):
            counts = self.count([markdown[block.start : block.end] for _, _, block in batch])
            yield from ((*item, tokens) for item, tokens in zip(batch, counts, strict=True))

    def room(self, title: str | None, path: HeadingPath) -> tuple[HeadingPath, int, int]:
        """The headings that fit into half of the limit, the tokens for the content, and for the overlap."""
        limit = self.settings.max_tokens
        while True:
            prefix = Chunk(index=0, start=0, end=0, content="", headings=path).indexed_text(title)
            (tokens,) = self.count([prefix])
            if tokens <= limit // 2 or not path:
                break
            path = path[1:]
        room = max(limit - tokens, limit // 4)
        overlap = min(self.settings.overlap_tokens, room // 2)
        return path, room - overlap, overlap

    def cut(self, markdown: str, block: Block, room: int) -> Iterator[Piece]:
        """A block that is over the limit by itself."""
        if block.kind == "table" and block.header_end < block.end:
            return self.cut_table(markdown, block, room)
        return self.split(markdown, block.start, block.end, room, prose=block.kind == "prose")

    def cut_table(self, markdown: str, block: Block, room: int) -> Iterator[Piece]:
        """Runs of rows; the first follows the header in the text, the others have it repeated before them.

        A row is never cut, even where it is over the limit by itself, unless it is longer than
        ``ROW_CHARACTERS``.
        """
        header = markdown[block.start : block.header_end]
        (tokens,) = self.count([header])
        repeated = header if len(header) <= HEADER_CHARACTERS else ""
        room_of_rows = room - tokens if repeated else room
        rows = self._rows(markdown, block, room, room_of_rows)
        first = not repeated
        if first:
            yield from self.split(markdown, block.start, block.header_end, room, prose=False)
        for piece in packed(rows, max(room_of_rows, 0)):
            if not first:
                first, piece.start, piece.tokens = True, block.start, piece.tokens + tokens
            else:
                piece.header = repeated
            piece.alone = True
            yield piece

    def _rows(self, markdown: str, block: Block, room: int, room_of_rows: int) -> Iterator[Piece]:
        for row in self.measured(markdown, lines(markdown, block.header_end, block.end)):
            if row.end - row.start <= ROW_CHARACTERS:
                yield row
            else:
                size = max(room_of_rows, room // 4)
                yield from self.split(markdown, row.start, row.end, size, prose=False)

    def split(self, markdown: str, start: int, end: int, room: int, *, prose: bool) -> Iterator[Piece]:
        """A text at the best boundaries of its syntax (prose), or of its lines and words."""
        room = max(room - room % 8, 8)  # few different splitters: making one takes 16 ms
        splitter = self._splitter(room, prose=prose)
        longest = room * CHARACTERS_PER_TOKEN

        def spans() -> Iterator[tuple[int, int]]:
            for window, stop in _windows(markdown, start, end):
                text = markdown[window:stop]
                found = splitter.chunk_indices(text) if not _is_dense(text) else ()
                cuts = [offset for offset, _ in found] or self._even(text, room)
                for first, last in pairwise([*cuts, len(text)]):
                    yield from _trimmed(markdown, window + first, window + last, longest)

        return self.measured(markdown, spans())

    def _even(self, text: str, room: int) -> Iterator[int]:
        """Where to cut a text with hardly a space in it: the splitter would take long to find nothing better.

        A token at the cut may count for more by itself than in its word, so some room is left.
        """
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        yield 0
        yield from (offsets[at][0] for at in range(room - room // 8, len(offsets), room - room // 8))

    def _splitter(self, room: int, *, prose: bool) -> MarkdownSplitter | TextSplitter:
        if (room, prose) not in self._splitters:
            from semantic_text_splitter import MarkdownSplitter, TextSplitter

            kind = MarkdownSplitter if prose else TextSplitter
            self._splitters[room, prose] = kind.from_huggingface_tokenizer(self._tokenizer, room)
        return self._splitters[room, prose]

    def overlapping(self, markdown: str, pieces: Iterable[Piece], overlap: int) -> Iterator[Piece]:
        """Each piece begun earlier, by up to ``overlap`` tokens of the piece before it."""
        before: Piece | None = None
        for piece in pieces:
            if overlap and before and not (before.alone or piece.alone) and before.end < piece.start:
                start = self._back(markdown, before.start, piece.start, overlap)
                yield replace(piece, start=start)
            else:
                yield piece
            before = piece

    def _back(self, markdown: str, lowest: int, end: int, overlap: int) -> int:
        """Where the last ``overlap`` tokens before ``end`` begin, at a word and outside of a table's row."""
        low = max(lowest, end - overlap * CHARACTERS_PER_TOKEN)
        offsets = self._tokenizer.encode(markdown[low:end], add_special_tokens=False).offsets
        start = low + offsets[-overlap][0] if len(offsets) > overlap else low
        if start > lowest and not markdown[start - 1].isspace():
            space = _SPACE.search(markdown, start, end)
            start = space.end() if space else end
        line = markdown.rfind("\n", lowest, start) + 1 or lowest
        if start < end and markdown[line:start].lstrip().startswith("|"):
            start = markdown.find("\n", start, end) + 1 or end
        return start


def packed(pieces: Iterable[Piece], room: int) -> Iterator[Piece]:
    """Neighbours joined as long as they fit."""
    current: Piece | None = None
    for piece in pieces:
        # Parts of one word have not the tokens of the word, so they stay apart. The white space between two
        # pieces has no tokens, but must not grow without end.
        if (
            current
            and not (current.alone or piece.alone)
            and current.end < piece.start
            and current.tokens + piece.tokens <= room
            and piece.end - current.start <= room * CHARACTERS_PER_TOKEN
        ):
            current.end = piece.end
            current.tokens += piece.tokens
        else:
            if current:
                yield current
            current = piece
    if current:
        yield current


def under(heads: Sequence[Piece], pieces: Iterable[Piece], room: int) -> Iterator[Piece]:
    """The first of ``pieces`` begun at the headings, if it leaves room for them: a table's row may not."""
    for piece in pieces:
        tokens = piece.tokens + sum(head.tokens for head in heads)
        if heads and tokens <= room:
            piece.start, piece.tokens = heads[0].start, tokens
        else:
            yield from heads
        heads = ()
        yield piece
    yield from heads


def _placed(blocks: Iterable[Block]) -> Iterator[tuple[int, HeadingPath, Block]]:
    """Each block with the number and the heading path of its section.

    A heading begins a section; one with nothing under it goes with what follows.
    """
    path: list[tuple[int, str]] = []
    headings: list[Block] = []
    number = 0
    names: HeadingPath = ()
    for block in blocks:
        if block.kind == "heading":
            while path and path[-1][0] >= block.level:
                path.pop()
            path.append((block.level, block.text))
            headings.append(block)
            if len(headings) < _MAX_HEADINGS:
                continue
        if headings:
            number += 1
            names = tuple(text for _, text in path if text)
            yield from ((number, names, heading) for heading in headings)
            headings.clear()
        if block.kind != "heading":
            yield number, names, block
    names = tuple(text for _, text in path if text)
    yield from ((number + 1, names, heading) for heading in headings)


def _batched(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _COUNT_BATCH)):
        yield batch


def lines(markdown: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The lines of ``markdown[start:end]`` that are not blank, without their ends."""
    while start < end:
        stop = markdown.find("\n", start, end)
        stop = end if stop < 0 else stop
        if markdown[start:stop].strip():
            yield start, stop
        start = stop + 1


def _is_dense(text: str) -> bool:
    return len(text.split(None, len(text) // 64)) <= len(text) // 64


def _trimmed(markdown: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """The text without the white space around it, in parts of at most ``longest`` characters."""
    text = markdown[start:end]
    first, last = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
    return ((cut, min(cut + longest, last)) for cut in range(first, last, longest))


def _windows(markdown: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """``start`` to ``end`` in windows, cut after a line or a word where there is one in the second half."""
    while end - start > _WINDOW:
        middle, stop = start + _WINDOW // 2, start + _WINDOW
        cut = markdown.rfind("\n", middle, stop) + 1 or markdown.rfind(" ", middle, stop) + 1 or stop
        yield start, cut
        start = cut
    yield start, end
