"""The chunkers beside that by headings: fixed, sentence, semantic; and the overlap that all have."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from crawler.chunkers._pieces import ChunkSettings, Cutter
from crawler.chunkers._sentences import sentences
from crawler.chunkers.fixed import Fixed
from crawler.chunkers.headings import Headings
from crawler.chunkers.semantic import Semantic, SemanticSettings
from crawler.chunkers.sentence import Sentence
from crawler.contracts import Chunk, Chunker, Services
from crawler.errors import EmbeddingFailed


class Subjects:
    """Embeds a sentence by its subject: leave or trains."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        return [[1.0, 0.0] if "leave" in text else [0.0, 1.0] for text in texts]


class Short:
    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0]]


def chunked(chunker: Chunker[Any], markdown: str, services: Services | None = None) -> list[Chunk]:
    return asyncio.run(chunker.chunk(markdown, (), None, services or Services()))


def parts(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text, 0, len(text))]


def test_fixed_chunks_are_full_whatever_the_headings() -> None:
    chunks = chunked(
        Fixed(ChunkSettings(max_tokens=64)), "# A\n\n" + "word " * 40 + "\n\n# B\n\n" + "word " * 60
    )
    counts = Cutter(ChunkSettings()).count([chunk.content for chunk in chunks])
    assert counts[0] == 64
    assert "# B" in chunks[0].content
    assert {chunk.headings for chunk in chunks} == {()}


@pytest.mark.parametrize("chunker", [Headings, Fixed, Sentence])
def test_an_overlap_repeats_the_end_of_the_chunk_before(chunker: type[Chunker[ChunkSettings]]) -> None:
    settings = ChunkSettings(max_tokens=64, overlap_tokens=10)
    markdown = "# A\n\n" + " ".join(f"word{number}." for number in range(60))
    chunks = chunked(chunker(settings), markdown)
    assert len(chunks) > 2
    for before, chunk in pairwise(chunks):
        repeated = markdown[chunk.start : before.end]
        assert repeated
        assert before.content.endswith(repeated)
        assert chunk.content.startswith(repeated)
    assert max(Cutter(settings).count([chunk.indexed_text(None) for chunk in chunks])) <= 64


def test_an_overlap_never_reaches_over_a_heading_or_into_a_table() -> None:
    chunker = Headings(ChunkSettings(max_tokens=64, overlap_tokens=16))
    rows = "\n".join(f"| {number} | {number} |" for number in range(60))
    chunks = chunked(chunker, f"# A\n\none two\n\n# B\n\nthree\n\n| a | b |\n|---|---|\n{rows}\n\nfour")
    assert [chunk.content for chunk in chunks if chunk.headings == ("A",)] == ["# A\n\none two"]
    assert chunks[1].content.startswith("# B")
    assert chunks[-1].content == "four"


def test_an_overlap_of_more_than_half_is_refused() -> None:
    with pytest.raises(ValidationError, match="half"):
        ChunkSettings(max_tokens=64, overlap_tokens=33)


def test_sentences_end_where_a_reader_ends_them() -> None:
    found = ['He said "no."', "Dr. Lee came on 3. Mai at 4.5 p.m.", "Why?", "Siehe Abb. 3 bzw. oben!", "Done"]
    assert parts(" ".join(found)) == found
    assert parts("漢字。次の文。") == ["漢字。", "次の文。"]
    assert parts("- one\n- two. three.\n  more\n2. four") == ["- one", "- two.", "three.", "more", "2. four"]


def test_sentence_chunks_hold_whole_sentences_over_paragraphs_and_never_over_headings() -> None:
    text = "This is one sentence of eight short words. " * 12
    chunks = chunked(Sentence(ChunkSettings(max_tokens=64)), f"# A\n\n{text}\n\n{text}\n\n# B\n\nEnd")
    assert all(chunk.content.endswith("words.") for chunk in chunks[:-1])
    assert any("words. \n\nThis" in chunk.content for chunk in chunks)
    assert chunks[-1].content == "# B\n\nEnd"


@pytest.mark.parametrize(
    "chunker",
    [
        Fixed(ChunkSettings(max_tokens=64)),
        Sentence(ChunkSettings(max_tokens=64)),
        Semantic(SemanticSettings(max_tokens=64)),
    ],
)
def test_headings_are_no_chunks_of_their_own_where_what_follows_is_cut(chunker: Chunker[Any]) -> None:
    rows = "".join(f"| Region {n} | {n}00 |\n" for n in range(30))
    for long in (f"| Region | Revenue |\n|---|---|\n{rows}", "Words without end and " * 80):
        before, first, *others = chunked(chunker, f"{'Before. ' * 25}\n\n# Figures\n\n## Revenue\n\n{long}")
        joined = first if "Figures" in first.content else before
        assert f"# Figures\n\n## Revenue\n\n{long[:20]}" in joined.content
        assert others
        counts = Cutter(chunker.settings).count([chunk.content for chunk in (before, first, *others)])
        assert max(counts) <= 64


def test_headings_stay_apart_from_a_row_that_would_be_over_the_limit_with_them() -> None:
    heading = "# " + " ".join(["leave"] * 15)
    row = "| " + "words " * 15 + "|"
    markdown = f"{heading}\n\n| a | b | c | d |\n|---|---|---|---|\n{row}\n{row}"
    for chunker in (Headings(ChunkSettings(max_tokens=64)), Sentence(ChunkSettings(max_tokens=64))):
        assert chunked(chunker, markdown)[0].content == heading


def test_the_last_headings_of_a_text_are_in_its_last_chunk() -> None:
    for chunker in (Fixed(ChunkSettings()), Sentence(ChunkSettings())):
        assert chunked(chunker, "Text\n\n# A\n\n## B")[-1].content.endswith("# A\n\n## B")


LEAVE = ["You ask for leave.", "A leave is granted soon.", "The leave is paid."]
TRAINS = ["Trains go often.", "They are cheap.", "A bicycle costs more."]


def test_semantic_chunks_part_where_the_subject_changes() -> None:
    embedder = Subjects()
    chunker = Semantic(SemanticSettings(breakpoint_percentile=80))
    chunks = chunked(chunker, " ".join(LEAVE + TRAINS), Services(embedder=embedder))
    assert [chunk.content for chunk in chunks] == [" ".join(LEAVE), " ".join(TRAINS)]
    assert sorted(embedder.asked) == sorted(LEAVE + TRAINS)


def test_without_an_embedding_model_semantic_is_sentence() -> None:
    markdown = "# A\n\n" + " ".join((LEAVE + TRAINS) * 10)
    settings = SemanticSettings(max_tokens=64)
    assert chunked(Semantic(settings), markdown) == chunked(Sentence(settings), markdown)


def test_an_embedding_model_that_answers_too_little_fails_the_document_for_now() -> None:
    with pytest.raises(EmbeddingFailed):
        chunked(Semantic(SemanticSettings()), " ".join(LEAVE), Services(embedder=Short()))
