"""Which tools a model is offered, and what it is told of the collections."""

from __future__ import annotations

from typing import Any

import pytest
from litellm import token_counter

from plugins.core.chat_config import Profile
from plugins.core.identity import Decision
from plugins.core.ports import Parts, QueryableCollection
from plugins.core.toolbox import Toolbox
from plugins.proxy.offers import offered
from plugins.tools.list_collections import ListCollections, ListCollectionsSettings
from plugins.tools.search_documents import SearchDocuments, SearchDocumentsSettings
from tests.support.fake_proxy import CLIENT_TOOL
from tests.support.fake_router import Round, text
from tests.support.services import ALICE, FakeCatalogue, FakeSearch

SOME = [
    QueryableCollection("vs_1", "handbook", "How we work.\n- finance: everything"),
    QueryableCollection("vs_2", "finance", "Reports " * 100),
    QueryableCollection("vs_3", "plain"),
]
MANY = [QueryableCollection(f"vs_{n}", f"collection-{n}", "What it is about. " * 4) for n in range(300)]


def tools(
    collections: list[QueryableCollection],
    names: list[str] | None = None,
    max_tokens: int = 600,
    denied: str = "",
) -> dict[str, str]:
    """The descriptions of the tools that are offered, by name."""
    parts = Parts(catalogue=FakeCatalogue({}), search=FakeSearch([]))
    toolbox = Toolbox(
        {
            "search_documents": SearchDocuments(SearchDocumentsSettings(), parts),
            "list_collections": ListCollections(ListCollectionsSettings(), parts),
        },
        lambda principal, name: Decision(allowed=name != denied, rule="test"),
    )
    found = offered(toolbox, ALICE, names, collections, max_tokens)
    return {schema["function"]["name"]: schema["function"]["description"] for schema in found}


def listed(description: str) -> list[str]:
    return [line for line in description.splitlines() if line.startswith("- ")]


def test_the_search_lists_the_collections_with_what_each_is_about_in_one_line() -> None:
    [(name, description)] = tools(SOME).items()
    assert name == "search_documents"
    handbook, finance, plain = listed(description)
    assert handbook == "- handbook: How we work. - finance: everything"
    assert finance.startswith("- finance: Reports Reports")
    assert finance.endswith("…")
    assert plain == "- plain"


def test_where_descriptions_do_not_fit_the_names_stand_and_the_list_is_offered() -> None:
    found = tools(SOME, max_tokens=50)
    assert set(found) == {"search_documents", "list_collections"}
    assert listed(found["search_documents"]) == ["- handbook", "- finance", "- plain"]
    assert found["search_documents"].endswith("`list_collections` tells what they are about.")


def test_too_many_names_go_as_far_as_the_budget_and_their_count_is_told() -> None:
    found = tools(MANY, max_tokens=100)
    shown = listed(found["search_documents"])
    assert 0 < len(shown) < len(MANY)
    assert token_counter(model="", text="\n".join(shown)) <= 100
    assert f"There are {len(MANY) - len(shown)} more." in found["search_documents"]


def test_a_list_that_the_caller_may_not_get_is_not_spoken_of() -> None:
    found = tools(MANY, max_tokens=100, denied="list_collections")
    assert set(found) == {"search_documents"}
    assert found["search_documents"].endswith(" more.")


def test_the_list_is_offered_where_the_profile_names_it_or_there_is_no_search() -> None:
    assert set(tools(SOME, ["search_documents", "list_collections"])) == {
        "search_documents",
        "list_collections",
    }
    assert set(tools(SOME, denied="search_documents")) == {"list_collections"}


def test_the_schemas_of_the_tools_themselves_are_not_changed() -> None:
    assert listed(tools(SOME)["search_documents"]) != []
    assert listed(tools([])["search_documents"]) == []


def test_who_may_query_nothing_has_it_said_to_the_model() -> None:
    assert tools([])["search_documents"].endswith("There is no collection that this user may search.")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"model": "rag-model"}, ["- handbook: About working here."]),
        ({"model": "shut"}, []),
        ({"model": "plain", "rag": {"collections": ["handbook"]}}, ["- handbook"]),
    ],
)
async def test_only_what_the_request_searches_is_listed(
    proxy_with: Any, body: dict[str, Any], names: list[str]
) -> None:
    proxy = proxy_with(Round([text("hi")]))
    await proxy.begin(**body, tools=[CLIENT_TOOL])
    search, own = proxy.router.requests[0]["tools"]
    assert listed(search["function"]["description"]) == names
    assert own == CLIENT_TOOL


def test_a_profile_is_auto_by_default() -> None:
    assert Profile().mode == "auto"
