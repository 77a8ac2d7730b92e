"""What every chunker promises, over every chunker there is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

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
def make(name: str, max_tokens: int) -> Chunker[Any]:
    plugin = find("crawler.chunkers", Chunker, name)  # type: ignore[type-abstract]
    return plugin(settings_type(plugin).model_validate({"max_tokens": max_tokens}))


def chunked(name: str, max_tokens: int, markdown: str, title: str | None = None) -> list[Chunk]:
    return asyncio.run(make(name, max_tokens).chunk(markdown, (), title, Services()))


every_chunker = pytest.mark.parametrize("name", NAMES)
every_limit = pytest.mark.parametrize("max_tokens", LIMITS)
thorough = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@every_chunker
@every_limit
@thorough
@given(markdown=markdowns)
def test_chunks_hold_every_visible_character_once_and_in_order(
    name: str, max_tokens: int, markdown: str
) -> None:
    position = 0
    for chunk in chunked(name, max_tokens, markdown):
        assert not markdown[position : chunk.start].strip()
        assert position <= chunk.start < chunk.end
        position = chunk.end
    assert not markdown[position:].strip()


@every_chunker
@every_limit
@thorough
@given(markdown=markdowns)
def test_content_is_the_slice_or_the_slice_under_its_tables_header(
    name: str, max_tokens: int, markdown: str
) -> None:
    for chunk in chunked(name, max_tokens, markdown):
        text = markdown[chunk.start : chunk.end]
        assert chunk.content.endswith(text)
        header = chunk.content.removesuffix(text)
        assert markdown.find(header) <= chunk.start
        assert not header or header.count("\n") == 2


@every_chunker
@every_limit
@thorough
@given(markdown=markdowns, title=titles)
def test_no_chunk_with_its_prefix_is_over_the_limit(
    name: str, max_tokens: int, markdown: str, title: str | None
) -> None:
    texts = [chunk.indexed_text(title) for chunk in chunked(name, max_tokens, markdown, title)]
    counts: Sequence[int] = MiniLM().count_tokens(texts) if texts else [0]
    assert max(counts) - SPECIAL_TOKENS <= max_tokens


@every_chunker
@thorough
@given(markdown=markdowns)
def test_chunks_are_numbered_from_zero_and_the_same_each_time(name: str, markdown: str) -> None:
    chunks = chunked(name, 64, markdown)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert chunked(name, 64, markdown) == chunks


@every_chunker
@thorough
@given(texts=st.lists(sentence, min_size=1, max_size=6))
def test_a_chunk_spans_the_pages_that_its_slice_touches(name: str, texts: list[str]) -> None:
    pages, markdown = [], ""
    for number, text in enumerate(texts, start=1):
        pages.append(Page(number=number, start=len(markdown)))
        markdown += f"{text}\n\n"
    for chunk in asyncio.run(make(name, 64).chunk(markdown, pages, None, Services())):
        ends = [page.start for page in pages[1:]] + [len(markdown)]
        touched = [
            p.number for p, end in zip(pages, ends, strict=True) if p.start < chunk.end and chunk.start < end
        ]
        assert (chunk.page_first, chunk.page_last) == (touched[0], touched[-1])


@every_chunker
@pytest.mark.parametrize("markdown", ["", "  \n\n\t"])
def test_nothing_visible_makes_no_chunk(name: str, markdown: str) -> None:
    assert chunked(name, 64, markdown) == []
