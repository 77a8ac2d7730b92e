"""What every chunker promises, over every chunker there is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crawler.contracts import Chunk, Chunker, Page, Services
from crawler.embedders.minilm import MiniLM
from crawler.registry import available, find, settings_type

NAMES = available("crawler.chunkers")
LIMITS = [64, 230]
SPECIAL_TOKENS = 2

words = st.lists(
    st.sampled_from(["leave", "days", "Überstunden", "x1", "42.5", "漢字", "e\u0301", "a" * 90]), max_size=60
)
sentence = words.map(" ".join)
row = st.lists(st.text("ab1 |", max_size=12), min_size=2, max_size=4).map(
    lambda cells: f"| {' | '.join(cells)} |"
)
block = st.one_of(
    st.builds(lambda level, text: f"{'#' * level} {text}", st.integers(1, 6), sentence.map(lambda s: s[:60])),
    sentence,
    st.builds(lambda rows: "\n".join(["| a | b |", "|---|---|", *rows]), st.lists(row, max_size=40)),
    st.builds(lambda lines: "\n".join(["```", *lines, "```"]), st.lists(sentence, max_size=10)),
    st.text(max_size=200),
    st.text("#|-=`~ \n\tab", max_size=120),
    st.text("漢>[(*_", min_size=200, max_size=900),
)
markdowns = st.lists(block, max_size=12).map("\n\n".join)
titles = st.none() | st.text(max_size=60)


@cache
def make(name: str, max_tokens: int, **options: int) -> Chunker[Any]:
    plugin = find("crawler.chunkers", Chunker, name)  # type: ignore[type-abstract]
    return plugin(settings_type(plugin).model_validate({"max_tokens": max_tokens, **options}))


class Letters:
    """Embeds a text as how often it has some letters: the same each time, and different for other words."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, *(float(text.count(letter)) for letter in "aelnx14漢")] for text in texts]


class Chunked(Protocol):
    def __call__(
        self, chunker: Chunker[Any], markdown: str, pages: Sequence[Page] = (), title: str | None = None
    ) -> list[Chunk]: ...


@pytest.fixture(scope="module")
def chunked() -> Iterator[Chunked]:
    """Chunks by one event loop: to make one takes longer than most documents."""
    with asyncio.Runner() as runner:

        def run(
            chunker: Chunker[Any], markdown: str, pages: Sequence[Page] = (), title: str | None = None
        ) -> list[Chunk]:
            return runner.run(chunker.chunk(markdown, pages, title, Services(embedder=Letters())))

        yield run


def is_one_row(chunk: Chunk) -> bool:
    """A table's header and one row, which is never cut."""
    lines = chunk.content.split("\n")
    return len(lines) == 3 and "|" in lines[1] and not lines[1].strip("|-: \t")


every_chunker = pytest.mark.parametrize("name", NAMES)
every_limit = pytest.mark.parametrize("max_tokens", LIMITS)
thorough = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def holds_every_visible_character_once_and_in_order(markdown: str, chunks: list[Chunk]) -> None:
    position = 0
    for chunk in chunks:
        assert not markdown[position : chunk.start].strip()
        assert position <= chunk.start < chunk.end
        position = chunk.end
    assert not markdown[position:].strip()


def content_is_the_slice_or_the_slice_under_its_tables_header(markdown: str, chunks: list[Chunk]) -> None:
    for chunk in chunks:
        text = markdown[chunk.start : chunk.end]
        assert chunk.content.endswith(text)
        header = chunk.content.removesuffix(text)
        assert markdown.find(header) <= chunk.start
        assert not header or header.count("\n") == 2


@every_chunker
@every_limit
@thorough
@given(markdown=markdowns, title=titles)
def test_chunks_are_the_document_in_order_and_only_a_single_row_of_a_table_is_over_the_limit_with_its_prefix(
    chunked: Chunked, name: str, max_tokens: int, markdown: str, title: str | None
) -> None:
    found = chunked(make(name, max_tokens), markdown, title=title)
    holds_every_visible_character_once_and_in_order(markdown, found)
    content_is_the_slice_or_the_slice_under_its_tables_header(markdown, found)
    texts = [chunk.indexed_text(title) for chunk in found if not is_one_row(chunk)]
    counts: Sequence[int] = MiniLM().count_tokens(texts) if texts else [0]
    assert max(counts) - SPECIAL_TOKENS <= max_tokens


@every_chunker
@thorough
@given(markdown=markdowns)
def test_chunks_are_numbered_from_zero_and_the_same_each_time(
    chunked: Chunked, name: str, markdown: str
) -> None:
    chunks = chunked(make(name, 64), markdown)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert chunked(make(name, 64), markdown) == chunks


@every_chunker
@thorough
@given(texts=st.lists(sentence, min_size=1, max_size=6))
def test_a_chunk_spans_the_pages_that_its_slice_touches(
    chunked: Chunked, name: str, texts: list[str]
) -> None:
    pages, markdown = [], ""
    for number, text in enumerate(texts, start=1):
        pages.append(Page(number=number, start=len(markdown)))
        markdown += f"{text}\n\n"
    for chunk in chunked(make(name, 64), markdown, pages):
        ends = [page.start for page in pages[1:]] + [len(markdown)]
        touched = [
            p.number for p, end in zip(pages, ends, strict=True) if p.start < chunk.end and chunk.start < end
        ]
        assert (chunk.page_first, chunk.page_last) == (touched[0], touched[-1])


@every_chunker
@thorough
@given(markdown=markdowns)
def test_with_an_overlap_a_chunk_repeats_whole_words_of_the_one_before_it_and_nothing_is_lost(
    chunked: Chunked, name: str, markdown: str
) -> None:
    chunks = chunked(make(name, 64, overlap_tokens=16), markdown)
    assert not markdown[: chunks[0].start if chunks else None].strip()
    assert not markdown[chunks[-1].end if chunks else 0 :].strip()
    for before, chunk in pairwise(chunks):
        end = before.end
        assert not markdown[end : chunk.start].strip()
        assert chunk.end > end
        assert chunk.content.endswith(markdown[chunk.start : chunk.end])
        if chunk.start < end:
            assert chunk.start >= before.start
            assert before.headings == chunk.headings
            assert chunk.start == 0 or markdown[chunk.start - 1].isspace() or chunk.start == before.start
            assert MiniLM().count_tokens([markdown[chunk.start : end]])[0] - SPECIAL_TOKENS <= 16


@every_chunker
@every_limit
def test_a_table_is_cut_between_rows_each_piece_under_its_header(
    chunked: Chunked, name: str, max_tokens: int
) -> None:
    header = "| Region | Revenue in 2024 |\n|---|---|"
    rows = [f"| Region {number} | {number * 1000} |" for number in range(100)]
    chunks = chunked(make(name, max_tokens), "\n".join(["# Figures", "", header, *rows, "", "The end."]))
    pieces = [chunk.content for chunk in chunks if "| Region" in chunk.content]
    assert all(piece.endswith("|") and header in piece for piece in pieces)
    assert [line for piece in pieces for line in piece.split("\n") if line[9:10].isdigit()] == rows


@every_chunker
def test_a_row_over_the_limit_is_one_chunk_under_its_header(chunked: Chunked, name: str) -> None:
    header, long = "| a | b |\n|---|---|", f"| {'word ' * 300}| end |"
    chunks = chunked(make(name, 64), f"{header}\n| x | y |\n{long}\n| z | z |")
    assert f"{header}\n{long}" in [chunk.content for chunk in chunks]


@every_chunker
@pytest.mark.parametrize("markdown", ["", "  \n\n\t"])
def test_nothing_visible_makes_no_chunk(chunked: Chunked, name: str, markdown: str) -> None:
    assert chunked(make(name, 64), markdown) == []
