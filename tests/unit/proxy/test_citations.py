"""What the numbers in an answer point to."""

from __future__ import annotations

import pytest

from plugins.proxy.citations import Citations
from tests.support.services import a_passage


def two_passages() -> Citations:
    citations = Citations("https://proxy.example/")
    assert citations.number([a_passage("one"), a_passage("two", page=None)]) == [1, 2]
    return citations


def test_numbers_go_on_over_searches_and_known_passages_keep_theirs() -> None:
    assert two_passages().number([a_passage("three"), a_passage("two", page=None)]) == [3, 2]


def test_equal_texts_of_two_places_are_two_passages() -> None:
    assert Citations("").number([a_passage("same", page=1), a_passage("same", page=2)]) == [1, 2]


@pytest.mark.parametrize(
    ("answer", "spans"),
    [
        ("It is so [1].", ["[1]"]),
        ("[2][1] and [1]", ["[2]", "[1]", "[1]"]),
        ("both [1, 2]", ["[1, 2]", "[1, 2]"]),
        ("öäü 🙂 [2]", ["[2]"]),
        ("invented [3], and [0] and [x] and [1", []),
        ("half [1, 9]", ["[1, 9]"]),
    ],
)
def test_annotations_are_exactly_over_the_citations_of_passages_that_exist(
    answer: str, spans: list[str]
) -> None:
    found = [annotation["url_citation"] for annotation in two_passages().annotations(answer)]
    assert [answer[citation["start_index"] : citation["end_index"]] for citation in found] == spans


def test_the_address_opens_the_document_at_its_page() -> None:
    first, second = (a["url_citation"]["url"] for a in two_passages().annotations("[1][2]"))
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
    links = [annotation["url_citation"]["url"] for annotation in citations.annotations("[1]")]
    assert links == ([url] if url else [])
    [result] = citations.search_results("[1]")
    assert result["url"] == url
    assert citations.source_event(1)["data"]["source"].get("url") == url


def test_an_id_cannot_change_the_address() -> None:
    citations = Citations("https://proxy.example")
    citations.number([a_passage("x", "../../admin?")])
    assert (
        "/v1/collections/..%2F..%2Fadmin%3F/documents/"
        in citations.annotations("[1]")[0]["url_citation"]["url"]
    )


def test_only_cited_passages_are_results() -> None:
    assert [result["text"] for result in two_passages().search_results("see [2] and [2]")] == ["two"]
