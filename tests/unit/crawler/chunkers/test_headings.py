"""Chunks by headings: what is packed, what is cut, and where."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from crawler.chunkers._pieces import ChunkSettings, Cutter
from crawler.chunkers.headings import Headings
from crawler.contracts import Chunk, Services

SMALL = Headings(ChunkSettings(max_tokens=64))


def chunked(markdown: str, title: str | None = None) -> list[Chunk]:
    return asyncio.run(SMALL.chunk(markdown, (), title, Services()))


def test_a_chunk_never_reaches_over_a_heading() -> None:
    chunks = chunked("# A\n\none\n\n## B\n\ntwo\n\n## C\n\nthree\n\n# D\n\nfour")
    assert [chunk.headings for chunk in chunks] == [("A",), ("A", "B"), ("A", "C"), ("D",)]
    assert chunks[1].content == "## B\n\ntwo"


def test_a_heading_with_nothing_under_it_goes_with_what_follows() -> None:
    (chunk,) = chunked("# A\n\n## B\n\ntext")
    assert chunk.headings == ("A", "B")
    assert chunk.content == "# A\n\n## B\n\ntext"


def test_paragraphs_are_packed_up_to_the_limit() -> None:
    chunks = chunked("\n\n".join(["ten words that are short enough for this very test"] * 10))
    assert [chunk.content.count("ten words") for chunk in chunks] == [6, 4]


def test_underlined_headings_are_headings_and_rules_are_not() -> None:
    chunks = chunked("First\n=====\n\none\n\n---\n\ntwo\n\nSecond\n------\n\nthree")
    assert [chunk.headings for chunk in chunks] == [("First",), ("First", "Second")]


def test_what_looks_like_a_heading_in_code_is_code() -> None:
    (chunk,) = chunked("# A\n\n```sh\n# not a heading\n```\n\n    # nor this")
    assert chunk.headings == ("A",)


def test_a_table_is_cut_between_rows_and_each_piece_has_its_header() -> None:
    header = "| Region | Revenue |\n|---|---|\n"
    markdown = "# Figures\n\n" + header + "".join(f"| Region {n} | {n}00 |\n" for n in range(30))
    chunks = chunked(markdown)
    assert len(chunks) > 2
    tables = [chunk for chunk in chunks if "Region 1 " in chunk.content or chunk.index > 1]
    for chunk in tables:
        content = chunk.content.removeprefix("# Figures\n\n")
        assert content.startswith(header)
        assert all(
            line.startswith("| ") and line.endswith(" |")
            for line in content.splitlines()
            if "---" not in line
        )
    rows = [line for chunk in chunks for line in chunk.content.splitlines() if line.startswith("| Region ")]
    assert [row for row in rows if row[9].isdigit()] == markdown.splitlines()[4:]


def test_the_header_that_is_repeated_counts_for_the_limit() -> None:
    header = "| Region of the company | Revenue of the year | Costs of the year |\n|---|---|---|\n"
    chunks = chunked(header + "".join(f"| Region {n} | {n}00 | {n}1 |\n" for n in range(60)))
    assert max(Cutter(ChunkSettings(max_tokens=64)).count([chunk.content for chunk in chunks])) <= 64


def test_a_header_that_no_chunk_could_repeat_stands_once() -> None:
    header = "| " + " | ".join(f"column {n}" for n in range(500)) + " |\n|" + "---|" * 500 + "\n"
    chunks = chunked(header + "".join(f"| Region {n} |\n" for n in range(60)))
    assert sum("| column 0 |" in chunk.content for chunk in chunks) == 1
    assert sum("| Region 59 |" in chunk.content for chunk in chunks) == 1


def test_headings_are_no_chunks_of_their_own_where_what_follows_is_cut() -> None:
    rows = "".join(f"| Region {n} | {n}00 |\n" for n in range(30))
    sentences = "This is one sentence of eight words. " * 30
    for long in (f"| Region | Revenue |\n|---|---|\n{rows}", sentences):
        first, second, *_ = chunked(f"# Figures\n\n## Revenue\n\n{long}")
        assert first.content.startswith(f"# Figures\n\n## Revenue\n\n{long[:20]}")
        assert first.headings == second.headings == ("Figures", "Revenue")


def test_what_follows_a_cut_table_is_not_under_its_header() -> None:
    rows = "".join(f"| {n} | {n}00 |\n" for n in range(40))
    last = chunked(f"| a | b |\n|---|---|\n{rows}\nAfter the table.")[-1]
    assert last.content == "After the table."


def test_one_oversized_row_is_cut_and_not_lost() -> None:
    cell = " ".join(f"word{n}" for n in range(200))
    chunks = chunked(f"| a | b |\n|---|---|\n| {cell} | end |\n| x | y |\n")
    text = " ".join(chunk.content for chunk in chunks)
    assert all(f"word{n}" in text for n in range(200))
    assert all(chunk.content.startswith("| a | b |\n|---|---|\n") for chunk in chunks)


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    chunks = chunked("This is one sentence of eight words. " * 30)
    assert len(chunks) > 1
    assert all(chunk.content.endswith("words.") for chunk in chunks)


def test_a_word_without_end_is_cut_too() -> None:
    chunks = chunked("x" * 20_000)
    assert max(len(chunk.content) for chunk in chunks) <= 64 * 16
    assert all(before.end == after.start for before, after in pairwise(chunks))


def test_headings_that_would_fill_the_chunk_lose_their_outermost() -> None:
    (chunk,) = chunked(f"# {'outer ' * 40}\n\n## Inner\n\ntext")[-1:]
    assert chunk.headings == ("Inner",)


def test_a_tokenizer_of_ones_own_can_be_named() -> None:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        tokenizer.save(str(path))
        chunker = Headings(ChunkSettings(max_tokens=64, tokenizer=path))
        chunks = asyncio.run(chunker.chunk("\n\n".join(["a.b.c d"] * 64), (), None, Services()))
    assert [len(chunk.content.split()) for chunk in chunks] == [64, 64]
