"""Search: over which collections, in which order, and that it never gives what one may not read."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from crawler.errors import CrawlError
from crawler.store import Comparison
from plugins.collections import tables
from plugins.core.errors import (
    Forbidden,
    InvalidRequest,
    ModelUnavailable,
    UnknownCollection,
    UnknownDocument,
)
from plugins.core.shapes import NewCollection, SearchRequest
from tests.support.collections import World, person

BOB = person("bob")
STRANGER = person("stranger")


async def test_without_names_all_that_one_may_query_are_searched_and_merged_by_score(world: World) -> None:
    await world.collection("a", query=["user:kc/bob"])
    await world.collection("b", query=["user:kc/bob"])
    await world.collection("hidden")
    for ref, text in (("a", "apple pie"), ("b", "apple apple"), ("hidden", "apple")):
        await world.add(ref, text)
    await world.work()
    world.model.queries.clear()
    passages = await world.searcher.search(BOB, None, SearchRequest(query="apple"))
    assert {passage.collection for passage in passages} == {"a", "b"}
    scores = [passage.score for passage in passages]
    assert scores == sorted(scores, reverse=True)
    assert world.model.queries == ["local/words"]
    assert await world.found(STRANGER, "apple") == []


async def test_a_named_collection_that_may_not_be_queried_is_forbidden_or_unknown(world: World) -> None:
    await world.collection("a", query=["user:kc/bob"])
    await world.collection("b", discover=["user:kc/bob"])
    await world.collection("hidden")
    request = SearchRequest(query="x")
    with pytest.raises(Forbidden, match="`query`"):
        await world.searcher.search(BOB, ["a", "b"], request)
    with pytest.raises(UnknownCollection):
        await world.searcher.search(BOB, ["a", "hidden"], request)
    assert await world.searcher.search(BOB, [], request) == []


async def test_hits_of_dropped_rows_are_made_up_for(world: World) -> None:
    await world.collection(query=["user:kc/bob"])
    for number in range(30):
        await world.add("handbook", f"apple number {number}")
    await world.add("handbook", "a very long text about one apple among many other things")
    await world.work()
    table = tables.documents
    async with world.database.write() as connection:  # as after a narrowing that the store has not seen
        await connection.execute(update(table).where(table.c.size < 20).values(acl=["user:kc/nobody"]))
    request = SearchRequest(query="apple", max_num_results=1)
    [passage] = await world.searcher.search(BOB, ["handbook"], request)
    assert passage.text.startswith("a very long text")


async def test_passages_of_a_revision_that_is_not_live_are_dropped(world: World) -> None:
    await world.collection()
    await world.add("handbook", "apple")
    await world.work()
    assert await world.found(world.alice, "apple") == ["apple"]
    async with world.database.write() as connection:  # as between a revision's last write and its going live
        await connection.execute(update(tables.documents).values(live_revision="another"))
    assert await world.found(world.alice, "apple") == []


async def test_filters_go_over_declared_fields_and_unknown_ones_are_refused(world: World) -> None:
    await world.collection()
    await world.add("handbook", "old news", metadata={"year": 2020})
    await world.add("handbook", "new news", metadata={"year": 2024})
    await world.work()
    recent = Comparison(type="gte", key="year", value=2023)
    assert await world.found(world.alice, "news", filters=recent) == ["new news"]
    with pytest.raises((InvalidRequest, CrawlError)):
        await world.found(world.alice, "news", filters=Comparison(type="eq", key="color", value="red"))


async def test_passages_below_the_threshold_and_over_the_number_are_left_out(world: World) -> None:
    await world.collection()
    for number in range(5):
        await world.add("handbook", f"apple {number}")
    await world.work()
    few = SearchRequest(query="apple", max_num_results=2)
    assert len(await world.searcher.search(world.alice, None, few)) == 2
    none = await world.found(
        world.alice, "apple", ranking_options={"score_threshold": 1.0, "ranker": "dense"}
    )
    assert none == []


async def test_a_model_that_is_gone_is_an_error_by_name_and_a_gap_without(world: World) -> None:
    world.model.names.add("ollama/nomic")
    await world.catalogue.create(world.alice, NewCollection(name="a", embedding_model="ollama/nomic"))
    await world.collection("b")
    await world.add("b", "apple")
    await world.work()
    world.model.names.remove("ollama/nomic")
    with pytest.raises(ModelUnavailable, match=r"ollama/nomic.*ask the operator"):
        await world.found(world.alice, "apple", "a")
    assert await world.found(world.alice, "apple") == ["apple"]
    assert await world.found(world.alice, "apple", "a", ranking_options={"ranker": "bm25"}) == []


async def test_a_dense_collection_has_no_other_ranker(world: World) -> None:
    await world.catalogue.create(world.alice, NewCollection(name="a", retrieval="dense"))
    await world.add("a", "apple")
    await world.work()
    assert await world.found(world.alice, "apple", "a") == ["apple"]
    with pytest.raises(InvalidRequest) as refused:
        await world.found(world.alice, "apple", "a", ranking_options={"ranker": "bm25"})
    assert refused.value.param == "ranking_options.ranker"


async def test_a_document_is_read_in_order_and_only_by_who_may(world: World) -> None:
    await world.collection(query=["user:kc/bob"], add=["user:kc/carol"])
    document = await world.add("handbook", "# One\n\nfirst\n\n# Two\n\nsecond", metadata={"year": 2024})
    with pytest.raises(UnknownDocument, match="not ready"):
        await world.searcher.read(BOB, document.id)
    await world.work()
    first, second = await world.searcher.read(BOB, document.id)
    assert ("first" in first.text, "second" in second.text) == (True, True)
    assert (first.title, first.filename, first.attributes["year"]) == ("One", "a.md", 2024)
    for reader in (STRANGER, person("carol")):
        with pytest.raises(UnknownDocument):
            await world.searcher.read(reader, document.id)
    for wrong in ("no-such", "", "../x", 'x" or 1==1'):
        with pytest.raises(UnknownDocument):
            await world.searcher.read(BOB, wrong)


async def test_an_id_in_two_collections_must_name_its_collection(world: World) -> None:
    for name in ("a", "b"):
        await world.collection(name)
        await world.add(name, f"text of {name}", document_id="same")
    await world.work()
    with pytest.raises(InvalidRequest):
        await world.searcher.read(world.alice, "same")
    [passage] = await world.searcher.read(world.alice, "b/same")
    assert passage.text == "text of b"
