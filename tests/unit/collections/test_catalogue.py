"""Collections: names, grants, rights, and what nobody may see."""

from __future__ import annotations

import asyncio

import pytest

from crawler.errors import StoreCapability
from plugins.collections.catalogue import CollectionCatalogue
from plugins.core.errors import Conflict, Forbidden, InvalidRequest, UnknownCollection
from plugins.core.shapes import Access, CollectionPatch, NewCollection
from tests.support.collections import World, person

BOB = person("bob", "staff")
STRANGER = person("stranger")


async def test_who_creates_a_collection_manages_it(world: World) -> None:
    created = await world.collection(discover=["group:kc/staff"])
    assert created.permissions == ["discover", "query", "add", "manage"]
    assert created.access == Access(discover=["group:kc/staff"], manage=["user:kc/alice"])
    assert (created.embedding_model, created.dimension, created.retrieval) == ("local/words", 16, "hybrid")
    assert await world.catalogue.get(world.alice, created.id) == created
    seen = await world.catalogue.get(BOB, "handbook")
    assert (seen.permissions, seen.access) == (["discover"], None)


async def test_creating_needs_the_right_to_create(world: World) -> None:
    with pytest.raises(Forbidden, match="`create`"):
        await world.catalogue.create(BOB, NewCollection(name="bobs"))


@pytest.mark.parametrize(
    "name", ["", "   ", "x" * 256, "a\x00b", "a\nb", "\n", "a\u2028b", "\ud800", "vs_" + "a" * 24, "vs_1"]
)
async def test_a_name_that_cannot_be_is_refused(world: World, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await world.collection(name)
    assert refused.value.param == "name"


async def test_a_name_is_taken_once_even_when_two_ask_at_once(world: World) -> None:
    answers = await asyncio.gather(
        *(world.collection(name) for name in ("résumé", " re\u0301sume\u0301 ")), return_exceptions=True
    )
    conflicts = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(conflicts) == 1
    assert conflicts[0].param == "name"
    assert (await world.catalogue.get(world.alice, "re\u0301sume\u0301")).name == "résumé"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"embedding_model": "nobody/knows"}, "embedding_model"),
        ({"pipeline": "nobody-knows"}, "pipeline"),
        ({"access": Access(query=["user:bob"])}, "access.query"),
    ],
)
async def test_what_the_server_does_not_have_is_refused_with_the_field(
    world: World, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await world.catalogue.create(world.alice, NewCollection.model_validate({"name": "new", **fields}))
    assert refused.value.param == param


async def test_a_hidden_collection_is_as_unknown_as_one_that_is_not_there(world: World) -> None:
    created = await world.collection(discover=["user:kc/bob"])
    messages = set()
    for ref in ("handbook", created.id, "no-such", "vs_" + "0" * 32, "a\x00b", "x" * 5000):
        with pytest.raises(UnknownCollection) as unknown:
            await world.catalogue.get(STRANGER, ref)
        messages.add((unknown.value.message, unknown.value.param))
    assert len(messages) == 1
    assert (await world.catalogue.list(STRANGER)).data == []


async def test_with_one_right_a_route_that_needs_another_is_forbidden_by_its_name(world: World) -> None:
    await world.collection(query=["user:kc/bob"])
    with pytest.raises(Forbidden, match="`discover`"):
        await world.catalogue.get(BOB, "handbook")
    with pytest.raises(Forbidden, match="`manage`"):
        await world.catalogue.change(BOB, "handbook", CollectionPatch(description="x"))
    with pytest.raises(Forbidden, match="`manage`"):
        await world.catalogue.drop(BOB, "handbook")
    assert (await world.catalogue.list(BOB)).data == []


async def test_a_patch_replaces_all_grants_at_once(world: World) -> None:
    await world.collection(query=["user:kc/bob"], discover=["user:kc/bob"])
    access = Access(discover=["*"], manage=["user:kc/alice"])
    changed = await world.catalogue.change(world.alice, "handbook", CollectionPatch(access=access))
    assert changed.access == access
    with pytest.raises(Forbidden, match="`query`"):
        await world.found(BOB, "x", "handbook")


async def test_a_patch_that_would_shut_out_who_sends_it_changes_nothing(world: World) -> None:
    created = await world.collection()
    patch = CollectionPatch(description="new", access=Access(manage=["user:kc/bob"]))
    with pytest.raises(Conflict) as refused:
        await world.catalogue.change(world.alice, "handbook", patch)
    assert refused.value.param == "access.manage"
    assert await world.catalogue.get(world.alice, "handbook") == created


async def test_lists_go_page_by_page_over_what_one_may_discover(world: World) -> None:
    ids = [(await world.collection(name, discover=["group:kc/staff"])).id for name in ("a", "b", "c")]
    hidden = await world.collection("bb")
    first = await world.catalogue.list(BOB, limit=2)
    rest = await world.catalogue.list(BOB, limit=2, after=ids[1])
    assert [view.id for view in (*first.data, *rest.data)] == ids
    assert (first.has_more, rest.has_more) == (True, False)
    for wrong in (0, 1001):
        with pytest.raises(InvalidRequest):
            await world.catalogue.list(BOB, limit=wrong)
    with pytest.raises(InvalidRequest):
        await world.catalogue.list(BOB, after=hidden.id)


async def test_policy_by_name_holds_for_collections_made_later(world: World) -> None:
    await world.collection("open-house")
    assert (await world.catalogue.get(STRANGER, "open-house")).permissions == ["discover", "query"]


async def test_hybrid_is_refused_by_a_store_that_cannot_and_auto_takes_what_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    capabilities = await world.store.capabilities()

    async def without_hybrid() -> object:
        return capabilities.model_copy(update={"hybrid": False})

    monkeypatch.setattr(world.store, "capabilities", without_hybrid)
    with pytest.raises(StoreCapability):
        await world.catalogue.create(world.alice, NewCollection(name="a", retrieval="hybrid"))
    made = await world.catalogue.create(world.alice, NewCollection(name="a"))
    assert made.retrieval == "dense"


async def test_a_collection_that_the_store_does_not_make_leaves_its_name_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: object, **kwargs: object) -> None:
        raise StoreCapability

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "create", broken)
        with pytest.raises(StoreCapability):
            await world.collection()
    assert (await world.catalogue.list(world.alice)).data == []
    await world.collection()


async def test_a_pipelines_embedding_model_is_that_of_its_collections_which_name_none(world: World) -> None:
    world.model.names |= {"local/other", "local/third"}
    config = world.config.collections
    catalogue = CollectionCatalogue(
        world.database,
        world.rights,
        world.store,
        world.model,
        config,
        {"default": None, "other": "local/other"},
        lambda name: name in world.model.names,
    )
    for pipeline, named, model in [
        ("default", None, "local/words"),
        ("other", None, "local/other"),
        ("other", "local/third", "local/third"),
    ]:
        new = NewCollection(name=f"{pipeline} {named}", pipeline=pipeline, embedding_model=named)
        created = await catalogue.create(world.alice, new)
        assert (created.pipeline, created.embedding_model) == (pipeline, model)
