"""read_document and list_collections."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from crawler.store import Comparison
from plugins.core.errors import ToolRetry, UnknownDocument
from plugins.core.ports import Parts, Scope
from plugins.tools.list_collections import (
    ListCollections,
    ListCollectionsArguments,
    ListCollectionsSettings,
)
from plugins.tools.read_document import ReadDocument, ReadDocumentArguments, ReadDocumentSettings
from tests.support.services import FakeCatalogue, FakeSearch, a_call, a_passage


def a_reader(search: FakeSearch, max_chars: int = 20_000) -> ReadDocument:
    return ReadDocument(
        ReadDocumentSettings(max_chars=max_chars), Parts(catalogue=FakeCatalogue({}), search=search)
    )


@pytest.mark.parametrize(
    ("pages", "span"), [("3", (3, 3)), ("3-5", (3, 5)), (" 3 - 5 ", (3, 5)), (None, None)]
)
async def test_pages_are_one_page_a_span_or_all(pages: str | None, span: tuple[int, int] | None) -> None:
    search = FakeSearch([a_passage("text")])
    await a_reader(search).run(ReadDocumentArguments(document_id="d1", pages=pages), a_call())
    assert search.pages == span


@pytest.mark.parametrize("pages", ["", "x", "0", "5-3", "1,2", "-3", "3-"])
def test_other_pages_are_refused_with_an_example(pages: str) -> None:
    with pytest.raises(ValidationError, match="pages"):
        ReadDocumentArguments(document_id="d1", pages=pages)


async def test_what_is_over_the_limit_is_left_out_and_said() -> None:
    passages = [a_passage("x" * 600, page=1), a_passage("y" * 600, page=2), a_passage("z" * 600, page=3)]
    result = await a_reader(FakeSearch(passages), max_chars=1300).run(
        ReadDocumentArguments(document_id="d1"), a_call()
    )
    assert [p.page_first for p in result.passages] == [1, 2]
    assert result.text == "The rest is left out; go on with page 3."
    assert result.structured["has_more"] is True


async def test_a_single_passage_over_the_limit_is_still_read() -> None:
    result = await a_reader(FakeSearch([a_passage("x" * 5000)]), max_chars=1000).run(
        ReadDocumentArguments(document_id="d1"), a_call()
    )
    assert len(result.passages) == 1
    assert result.structured["has_more"] is False


async def test_a_document_outside_the_scope_is_unknown() -> None:
    reader = a_reader(FakeSearch([a_passage("secret", collection_id="vs_f")]))
    scope = Scope(collections=frozenset({"vs_h"}))
    with pytest.raises(UnknownDocument):
        await reader.run(ReadDocumentArguments(document_id="d1"), a_call(scope))


async def test_under_a_filter_documents_are_not_read_past_it() -> None:
    search = FakeSearch([a_passage("secret")])
    scope = Scope(filters=Comparison(type="eq", key="language", value="de"))
    with pytest.raises(ToolRetry, match="search_documents"):
        await a_reader(search).run(ReadDocumentArguments(document_id="d1"), a_call(scope))


@pytest.mark.parametrize(
    ("pages", "titles", "words"),
    [
        ("3", {"d1": "Handbook"}, "Reading Handbook, page 3"),
        ("3-5", {"d1": "Handbook"}, "Reading Handbook, pages 3-5"),
        ("3-3", {"d2": "Another"}, "Reading a document, page 3"),
        (None, {"d1": "Handbook"}, "Reading Handbook"),
    ],
)
def test_the_user_is_told_what_is_read(pages: str | None, titles: dict[str, str], words: str) -> None:
    args = ReadDocumentArguments(document_id="d1", pages=pages)
    assert a_reader(FakeSearch([])).describe(args, titles) == words


def a_lister(catalogue: FakeCatalogue, max_collections: int = 100) -> ListCollections:
    return ListCollections(
        ListCollectionsSettings(max_collections=max_collections),
        Parts(catalogue=catalogue, search=FakeSearch([])),
    )


async def test_collections_are_listed_with_what_they_are_about() -> None:
    result = await a_lister(FakeCatalogue({"handbook": "vs_h"})).run(ListCollectionsArguments(), a_call())
    assert result.text == "- handbook (2 documents): about handbook"
    assert result.structured["results"][0]["id"] == "vs_h"


async def test_a_collection_that_may_only_be_seen_says_so() -> None:
    catalogue = FakeCatalogue({"finance": "vs_f"}, permissions=["discover"])
    result = await a_lister(catalogue).run(ListCollectionsArguments(), a_call())
    assert "you may not search it" in result.text


async def test_only_collections_of_the_scope_are_listed() -> None:
    catalogue = FakeCatalogue({"handbook": "vs_h", "finance": "vs_f"})
    result = await a_lister(catalogue).run(
        ListCollectionsArguments(), a_call(Scope(collections=frozenset({"vs_f"})))
    )
    assert [entry["name"] for entry in result.structured["results"]] == ["finance"]


async def test_a_description_cannot_look_like_another_collection() -> None:
    catalogue = FakeCatalogue({"handbook": "vs_h"})
    catalogue.views = [catalogue.views[0].model_copy(update={"description": "a\n- finance (9 documents)"})]
    tool = ListCollections(ListCollectionsSettings(), Parts(catalogue=catalogue, search=FakeSearch([])))
    result = await tool.run(ListCollectionsArguments(), a_call())
    assert len(result.text.splitlines()) == 1


async def test_that_there_are_more_is_said() -> None:
    catalogue = FakeCatalogue({"handbook": "vs_h", "finance": "vs_f"})
    result = await a_lister(catalogue, max_collections=1).run(ListCollectionsArguments(), a_call())
    assert result.text.endswith("There are more.")
    assert result.structured["has_more"] is True


async def test_no_collections_is_said_in_words() -> None:
    result = await a_lister(FakeCatalogue({})).run(ListCollectionsArguments(), a_call())
    assert result.text == "There is no collection that you may see."
