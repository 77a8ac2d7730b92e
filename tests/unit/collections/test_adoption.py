"""Collections that others made, on the embedded Milvus: which become rows, and what a search finds there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymilvus import AsyncMilvusClient, DataType  # type: ignore[import-untyped]

from crawler.errors import StoreMismatch
from crawler.store import Comparison, Layout
from crawler.stores._connection import open_client
from crawler.stores.milvus import Milvus
from plugins.collections import adoption
from plugins.core.config import Adoption, Policy
from plugins.core.errors import Conflict, InvalidRequest, UnknownCollection
from plugins.core.shapes import SearchRequest
from tests.support.collections import DIMENSION, MODEL, World, a_config, make_tables, person, words

FIELDS = {"text": "body", "vector": "embedding", "source": "link", "page": "sheet", "metadata": "extra"}
TEXTS = ("The canteen opens at noon.", "Bicycles are parked in the yard.")
BOB = person("bob")


@pytest.fixture
async def client(store: Milvus) -> AsyncIterator[AsyncMilvusClient]:
    opened = open_client(store.settings)
    yield opened
    await opened.close()


@pytest.fixture
async def foreign(client: AsyncMilvusClient) -> AsyncIterator[str]:
    """The name of a collection as another program would have made it."""
    name = f"old_{uuid4().hex}"
    await make(client, name)
    yield name
    await client.drop_collection(name)


async def make(client: AsyncMilvusClient, name: str, texts: Sequence[str] = TEXTS) -> None:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.INT64, is_primary=True)
    for field in ("body", "link"):
        schema.add_field(field, DataType.VARCHAR, max_length=500)
    schema.add_field("sheet", DataType.INT64)
    schema.add_field("extra", DataType.JSON)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIMENSION)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="FLAT", metric_type="COSINE")
    await client.create_collection(name, schema=schema, index_params=index)
    rows = [
        {
            "pk": number,
            "body": text,
            "link": f"https://intranet.example/{number}" if number else "",
            "sheet": number,
            "extra": {"floor": number, "nested": {"left": "out"}},
            "embedding": words(text),
        }
        for number, text in enumerate(texts)
    ]
    await client.insert(name, rows)
    await client.load_collection(name)


async def world_of(folder: Path, store: Milvus, monkeypatch: pytest.MonkeyPatch, **entry: Any) -> World:
    """Everybody may query what begins with `old_`; it is looked each time."""
    monkeypatch.setattr(adoption, "EVERY_S", 0.0)
    fields = Layout.model_validate({**FIELDS, **entry.pop("fields", {})})
    adopt = Adoption(**{"names": "old_*", "embedding_model": MODEL, **entry}, fields=fields)
    policy = [Policy(names="old_*", discover=["*"], query=["*"]), Policy(names="*", manage=["user:kc/alice"])]
    config = a_config(folder, policy=policy, adopt=[adopt])
    await make_tables(config)
    return World(config, store)


@pytest.fixture
async def world(tmp_path: Path, store: Milvus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = await world_of(tmp_path, store, monkeypatch)
    yield made
    await made.database.close()


async def names(world: World) -> set[str]:
    return {view.name for view in (await world.catalogue.list(BOB)).data}


async def test_it_is_listed_and_searched(world: World, foreign: str) -> None:
    view = next(view for view in (await world.catalogue.list(BOB)).data if view.name == foreign)
    assert (view.permissions, view.retrieval, view.dimension) == (["discover", "query"], "dense", DIMENSION)
    passages = await world.searcher.search(BOB, [foreign], a_search("bicycles in the yard"))
    assert [passage.text for passage in passages] == [TEXTS[1], TEXTS[0]]
    best, other = passages
    assert (best.document_id, best.source, best.page_first) == ("1", "https://intranet.example/1", 1)
    assert best.attributes == {"floor": 1}
    assert (other.source, other.page_first) == (foreign, None)
    assert 0 <= other.score < best.score <= 1


def a_search(query: str, **options: Any) -> SearchRequest:
    return SearchRequest(query=query, **options)


async def test_it_is_searched_together_with_ours(world: World, foreign: str) -> None:
    await world.collection("handbook", query=["user:kc/bob"])
    await world.add("handbook", "Bicycles may not be ridden in the hall.")
    await world.work()
    found = await world.searcher.search(BOB, None, a_search("bicycles"))
    assert {passage.collection for passage in found} == {"handbook", foreign}


async def test_it_cannot_be_changed_from_here(world: World, foreign: str) -> None:
    await names(world)
    with pytest.raises(Conflict, match="outside"):
        await world.documents.check_add(world.alice, foreign)
    with pytest.raises(Conflict, match="outside"):
        await world.add(foreign, "mine")
    with pytest.raises(Conflict, match="outside"):
        await world.catalogue.drop(world.alice, foreign)
    with pytest.raises(Conflict, match="outside"):
        await world.documents.delete(world.alice, foreign, "1")


async def test_a_filter_is_refused_where_it_is_named_and_leaves_it_out_elsewhere(
    world: World, foreign: str
) -> None:
    only = Comparison(type="eq", key="filename", value="x")
    with pytest.raises(InvalidRequest) as refused:
        await world.searcher.search(BOB, [foreign], a_search("x", filters=only))
    assert refused.value.param == "filters"
    assert await world.searcher.search(BOB, None, a_search("x", filters=only)) == []


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"fields": {"text": "content"}}, "no field `content` for `text`"),
        ({"fields": {"text": "sheet"}}, "must be VARCHAR"),
        ({"fields": {"vector": "body"}}, "must be FLOAT_VECTOR"),
        ({"fields": {"metadata": "link"}}, "must be JSON"),
        ({"fields": {"id": "link"}}, "not the primary key"),
        ({"metric": "L2"}, "compared by COSINE, not L2"),
    ],
)
async def test_one_that_is_not_as_the_yaml_says_is_left_out_with_the_reason(
    tmp_path: Path,
    store: Milvus,
    foreign: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    entry: dict[str, Any],
    problem: str,
) -> None:
    world = await world_of(tmp_path, store, monkeypatch, **entry)
    assert foreign not in await names(world)
    assert problem in caplog.text
    with pytest.raises(UnknownCollection):
        await world.searcher.search(BOB, [foreign], a_search("x"))
    await world.database.close()


async def test_one_of_ours_is_never_adopted_nor_searched_as_if_it_were(
    tmp_path: Path, store: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its passages have audiences, which such a search does not know."""
    ours = {"text": "text", "vector": "dense", "source": None, "page": None, "metadata": "meta"}
    world = await world_of(tmp_path, store, monkeypatch, names="c_*", fields=ours)
    view = await world.collection("handbook")
    physical = f"c_{view.id.removeprefix('vs_')}"
    assert physical not in {listed.name for listed in (await world.catalogue.list(world.alice)).data}
    layout = Layout(text="text", vector="dense")
    with pytest.raises(StoreMismatch, match="cannot be adopted"):
        await store.search_foreign(physical, layout, words("x"), 5)
    await world.database.close()


async def test_it_comes_and_goes_with_the_server_and_keeps_its_id(
    world: World, client: AsyncMilvusClient
) -> None:
    name = f"old_{uuid4().hex}"
    assert name not in await names(world)
    await make(client, name)
    first = await world.catalogue.get(BOB, name)
    await client.drop_collection(name)
    assert name not in await names(world)
    with pytest.raises(UnknownCollection):
        await world.catalogue.get(BOB, first.id)
    await make(client, name)
    assert (await world.catalogue.get(BOB, name)).id == first.id
    await client.drop_collection(name)


async def test_what_the_yaml_no_longer_adopts_is_gone(world: World, foreign: str) -> None:
    assert foreign in await names(world)
    config = world.config.model_copy(
        update={"collections": world.config.collections.model_copy(update={"adopt": []})}
    )
    assert foreign not in await names(World(config, world.store))


async def test_a_name_that_one_of_ours_has_stays_ours(
    world: World, foreign: str, caplog: pytest.LogCaptureFixture
) -> None:
    created = await world.collection(foreign)
    listed = {view.name: view.id for view in (await world.catalogue.list(world.alice)).data}
    assert listed[foreign] == created.id
    assert "its name is taken" in caplog.text


async def test_a_model_with_other_vectors_is_a_conflict_without_details(world: World, foreign: str) -> None:
    await names(world)
    world.model.dimension = DIMENSION + 1
    with pytest.raises(StoreMismatch) as refused:
        await world.searcher.search(BOB, [foreign], a_search("x"))
    assert "embedding" not in refused.value.message
    assert await world.searcher.search(BOB, None, a_search("x")) == []
