"""search_documents: finds passages within the caller's rights and the request's scope."""

from __future__ import annotations

import pytest

from crawler.store import Comparison, Compound
from plugins.core.errors import ToolRetry
from plugins.core.ports import Parts, Scope
from plugins.core.shapes import RankingOptions
from plugins.tools.search_documents import (
    SearchDocuments,
    SearchDocumentsArguments,
    SearchDocumentsSettings,
)
from tests.support.services import FakeCatalogue, FakeSearch, a_call, a_passage

PAGE_3 = Comparison(type="eq", key="page", value=3)
GERMAN = Comparison(type="eq", key="language", value="de")


def a_tool(search: FakeSearch, **settings: int) -> SearchDocuments:
    parts = Parts(catalogue=FakeCatalogue({"handbook": "vs_h", "finance": "vs_f"}), search=search)
    return SearchDocuments(SearchDocumentsSettings(**settings), parts)


async def test_passages_are_given_for_citing_and_as_data() -> None:
    passage = a_passage("30 days of leave")
    search = FakeSearch([passage])
    result = await a_tool(search).run(SearchDocumentsArguments(query="leave"), a_call())
    assert result.passages == (passage,)
    assert result.structured["results"][0]["text"] == "30 days of leave"
    assert search.collections is None
    assert search.request.query == "leave"


async def test_nothing_found_is_said_in_words() -> None:
    result = await a_tool(FakeSearch([])).run(SearchDocumentsArguments(query="leave"), a_call())
    assert result.text == "Nothing was found."
    assert result.structured == {"results": []}


async def test_named_collections_are_searched_as_they_were_named() -> None:
    search = FakeSearch([])
    args = SearchDocumentsArguments(query="leave", collections=["handbook"])
    await a_tool(search).run(args, a_call())
    assert search.collections == ["handbook"]


async def test_without_names_the_scope_is_searched() -> None:
    search = FakeSearch([])
    scope = Scope(collections=frozenset({"vs_h", "vs_f"}))
    await a_tool(search).run(SearchDocumentsArguments(query="leave"), a_call(scope))
    assert search.collections == ["vs_f", "vs_h"]


async def test_the_scopes_ranking_holds_for_every_search() -> None:
    search = FakeSearch([])
    ranking = RankingOptions(ranker="dense", score_threshold=0.4)
    await a_tool(search).run(SearchDocumentsArguments(query="leave"), a_call(Scope(ranking_options=ranking)))
    assert search.request.ranking_options == ranking


@pytest.mark.parametrize("ref", ["handbook", "vs_h"])
async def test_a_collection_within_the_scope_may_be_named_or_given_by_id(ref: str) -> None:
    search = FakeSearch([])
    args = SearchDocumentsArguments(query="leave", collections=[ref])
    await a_tool(search).run(args, a_call(Scope(collections=frozenset({"vs_h"}))))
    assert search.collections == ["vs_h"]


@pytest.mark.parametrize("ref", ["finance", "vs_f", "no such"])
async def test_a_collection_outside_the_scope_is_refused_before_any_search(ref: str) -> None:
    search = FakeSearch([])
    args = SearchDocumentsArguments(query="leave", collections=["handbook", ref])
    with pytest.raises(ToolRetry, match=ref):
        await a_tool(search).run(args, a_call(Scope(collections=frozenset({"vs_h"}))))
    assert search.searches == 0


async def test_an_empty_scope_searches_nothing_rather_than_everything() -> None:
    search = FakeSearch([])
    await a_tool(search).run(SearchDocumentsArguments(query="leave"), a_call(Scope(collections=frozenset())))
    assert search.collections == []


async def test_the_filters_of_scope_and_arguments_must_both_hold() -> None:
    search = FakeSearch([])
    args = SearchDocumentsArguments(query="leave", filters=PAGE_3)
    await a_tool(search).run(args, a_call(Scope(filters=GERMAN)))
    assert search.request.filters == Compound(type="and", filters=[GERMAN, PAGE_3])


@pytest.mark.parametrize(("scope", "filters", "expected"), [(GERMAN, None, GERMAN), (None, PAGE_3, PAGE_3)])
async def test_one_filter_alone_holds_alone(
    scope: Comparison | None, filters: Comparison | None, expected: Comparison
) -> None:
    search = FakeSearch([])
    args = SearchDocumentsArguments(query="leave", filters=filters)
    await a_tool(search).run(args, a_call(Scope(filters=scope)))
    assert search.request.filters == expected


@pytest.mark.parametrize(
    ("wanted", "in_scope", "setting", "expected"),
    [(50, 50, 20, 20), (50, 5, 20, 5), (3, 50, 20, 3), (None, 50, 20, 8), (None, 2, 20, 2)],
)
async def test_the_smallest_of_wish_scope_and_setting_is_the_number_of_results(
    wanted: int | None, in_scope: int, setting: int, expected: int
) -> None:
    search = FakeSearch([])
    args = SearchDocumentsArguments(query="leave", max_num_results=wanted)
    await a_tool(search, max_num_results=setting).run(args, a_call(Scope(max_num_results=in_scope)))
    assert search.request.max_num_results == expected
