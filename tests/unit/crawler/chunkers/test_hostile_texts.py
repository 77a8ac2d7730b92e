"""Texts that are made to take long to cut: time grows with their length, and not with its square."""

from __future__ import annotations

import asyncio

import pytest

from crawler.chunkers import _chunker
from crawler.chunkers._pieces import ChunkSettings
from crawler.contracts import Chunker, Services
from crawler.errors import DocumentTooLarge
from crawler.registry import available, find, settings_type

LENGTH = 100_000
TEXTS = {
    "one line": "x",
    "words": "word ",
    "headings of nothing": "#\n",
    "hashes": "#",
    "bars": "|",
    "backticks": "`",
    "fences": "```\n",
    "quotes": "> ",
    "brackets": "[a](",
    "stars": "*a ",
    "points": ".",
    "ideographs": "漢。",
    "underlines": "a\n=\n",
    "items": "- a\n",
    "spaces": " \n",
}


@pytest.mark.parametrize("name", available("crawler.chunkers"))
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_is_made_to_take_long_is_cut_within_the_limit(name: str, text: str) -> None:
    plugin = find("crawler.chunkers", Chunker, name)  # type: ignore[type-abstract]
    settings = settings_type(plugin).model_validate({"overlap_tokens": 20})
    markdown = TEXTS[text] * (LENGTH // len(TEXTS[text]))
    chunks = asyncio.run(plugin(settings).chunk(markdown, (), None, Services()))
    assert bool(chunks) == bool(markdown.strip())


def test_a_table_of_very_many_columns_keeps_its_rows_whole() -> None:
    chunker = find("crawler.chunkers", Chunker, "headings")(ChunkSettings())  # type: ignore[type-abstract]
    row = "|b" * 3_000 + "|"
    markdown = "\n".join(["|a" * 3_000 + "|", "|-" * 3_000 + "|", *[row] * 20])
    chunks = asyncio.run(chunker.chunk(markdown, (), None, Services()))
    assert sum(row in chunk.content for chunk in chunks) == 20


def test_cutting_ends_at_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    chunker = find("crawler.chunkers", Chunker, "headings")(ChunkSettings())  # type: ignore[type-abstract]
    for limit in ("MAX_CHUNKS", "MAX_SECONDS"):
        with monkeypatch.context() as patched:
            patched.setattr(_chunker, limit, 0)
            with pytest.raises(DocumentTooLarge, match="Split"):
                asyncio.run(chunker.chunk("# a\n\nb", (), None, Services()))
