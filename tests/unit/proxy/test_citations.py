"""What the numbers in an answer point to."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.proxy.citations import Citations, CitedText
from tests.support.services import a_passage


def two_passages() -> Citations:
    citations = Citations("https://proxy.example/")
    assert citations.number([a_passage("one"), a_passage("two", page=None)]) == [1, 2]
    return citations


def answered(citations: Citations, answer: str) -> tuple[str, CitedText, list[dict[str, Any]]]:
    """The client's text, and its annotations."""
    text = CitedText(citations)
    shown = text.feed(answer) + text.rest()
    annotations = citations.annotations(text.cited, text.spans)
    return shown, text, [annotation["url_citation"] for annotation in annotations]


def test_numbers_go_on_over_searches_and_known_passages_keep_theirs() -> None:
    assert two_passages().number([a_passage("three"), a_passage("two", page=None)]) == [3, 2]


def test_equal_texts_of_two_places_are_two_passages() -> None:
    assert Citations("").number([a_passage("same", page=1), a_passage("same", page=2)]) == [1, 2]


@pytest.mark.parametrize(
    ("answer", "shown", "spans"),
    [
        ("It is so [1].", "It is so [1].", ["[1]"]),
        ("[2][1] and [2]", "[1][2] and [1]", ["[1]", "[2]", "[1]"]),
        ("both [1, 2]", "both [1][2]", ["[1]", "[2]"]),
        ("öäü 🙂 [2]", "öäü 🙂 [1]", ["[1]"]),
        ("half [1, 9]", "half [1]", ["[1]"]),
        ("[x] and [1", "[x] and [1", []),
    ],
)
def test_annotations_are_exactly_over_the_citations_of_passages_that_exist(
    answer: str, shown: str, spans: list[str]
) -> None:
    text, _, found = answered(two_passages(), answer)
    assert text == shown
    assert [text[citation["start_index"] : citation["end_index"]] for citation in found] == spans


def test_the_address_opens_the_document_at_its_page() -> None:
    first, second = (citation["url"] for citation in answered(two_passages(), "[1][2]")[2])
    assert first == "https://proxy.example/v1/collections/vs_h/documents/d1/content#page=3"
    assert second == "https://proxy.example/v1/collections/vs_h/documents/d1/content"


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("https://intranet.example/a", "https://intranet.example/a"),
        ("yard.pdf", None),
        ("javascript:alert(1)", None),
        ("file:///etc/passwd", None),
    ],
)
def test_what_has_no_document_here_links_to_its_source_or_nowhere(source: str, url: str | None) -> None:
    citations = Citations("https://proxy.example")
    citations.number([a_passage("x").model_copy(update={"source": source})])
    _, text, found = answered(citations, "[1]")
    assert [citation["url"] for citation in found] == ([url] if url else [])
    [result] = citations.search_results(text.cited)
    assert result["url"] == url


def test_an_id_cannot_change_the_address() -> None:
    citations = Citations("https://proxy.example")
    citations.number([a_passage("x", "../../admin?")])
    assert "/v1/collections/..%2F..%2Fadmin%3F/documents/" in answered(citations, "[1]")[2][0]["url"]


def test_only_cited_passages_are_results() -> None:
    citations = two_passages()
    _, text, _ = answered(citations, "see [2] and [2]")
    assert [(r["number"], r["text"]) for r in citations.search_results(text.cited)] == [(1, "two")]
