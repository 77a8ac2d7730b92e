"""Collections whose rights are the store's own, over a fake store that has users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from crawler.errors import CredentialRefused, StoreDenied, StoreUnavailable
from crawler.store import Privileges, StoreRight
from plugins.collections import standings
from plugins.core.config import Policy
from plugins.core.errors import Conflict, Forbidden, InvalidRequest, UnknownCollection
from plugins.core.identity import Principal
from plugins.core.shapes import Access, CollectionPatch, NewCollection
from tests.support.collections import World, a_config, make_tables, person
from tests.support.fake_rights_store import FakeRightsStore, Person

ADMIN, READER, INSERTER, NOBODY = "admin:1", "reader:2", "inserter:3", "nobody:4"


def with_credential(credential: str | None, name: str = "bob") -> Principal:
    given = SecretStr(credential) if credential is not None else None
    return person(name).model_copy(update={"store_credential": given})


def may(*rights: StoreRight) -> Privileges:
    return Privileges(rights={"handbook": frozenset(rights)})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRightsStore:
    monkeypatch.setattr(standings, "LISTING_S", 0.0)
    everything = Privileges(rights={"*": frozenset({"query", "add", "manage"})}, create=True)
    sees = frozenset({"handbook", "elsewhere"})
    return FakeRightsStore(
        {
            ADMIN: Person(sees, everything),
            READER: Person(sees, may("query")),
            INSERTER: Person(frozenset(), may("add")),
            NOBODY: Person(),
        }
    )


@pytest.fixture
async def world(tmp_path: Path, fake: FakeRightsStore) -> AsyncIterator[World]:
    """By the YAML's policy everybody may do everything with everything; it does not count here."""
    policy = [Policy(discover=["*"], query=["*"], add=["*"], manage=["*"])]
    config = a_config(tmp_path, rights="milvus", privileges_cache_s=0, policy=policy)
    await make_tables(config)
    made = World(config, fake)
    await made.catalogue.create(with_credential(ADMIN), NewCollection(name="handbook"))
    fake.existing.add("elsewhere")
    yield made
    await made.database.close()


async def test_a_collection_is_made_as_the_caller_under_its_own_name(
    world: World, fake: FakeRightsStore
) -> None:
    assert fake.made == [("handbook", ADMIN)]
    view = await world.catalogue.get(with_credential(ADMIN), "handbook")
    assert view.permissions == ["discover", "query", "add", "manage"]
    assert view.access is None


@pytest.mark.parametrize(
    ("credential", "permissions"),
    [(READER, ["discover", "query"]), (INSERTER, ["add"]), (NOBODY, []), (None, [])],
)
async def test_rights_are_those_of_the_credential_and_none_implies_another(
    world: World, credential: str | None, permissions: list[str]
) -> None:
    caller = with_credential(credential)
    found = (await world.catalogue.list(caller)).data
    assert [view.name for view in found] == (["handbook"] if "discover" in permissions else [])
    assert [view.permissions for view in found] == ([permissions] if found else [])
    if not permissions:
        with pytest.raises(UnknownCollection):
            await world.found(caller, "x", "handbook")
    elif "query" not in permissions:
        with pytest.raises(Forbidden, match="`query`"):
            await world.found(caller, "x", "handbook")
    else:
        assert await world.found(caller, "x", "handbook") == []


async def test_who_may_drop_may_not_thereby_read(world: World, fake: FakeRightsStore) -> None:
    """Else somebody would get more through us than Milvus gives them."""
    fake.people[NOBODY] = Person(frozenset(), may("manage"))
    with pytest.raises(Forbidden, match="`query`"):
        await world.found(with_credential(NOBODY), "x", "handbook")


async def test_grants_of_ours_cannot_be_given(world: World) -> None:
    admin = with_credential(ADMIN)
    with pytest.raises(InvalidRequest) as refused:
        await world.catalogue.create(admin, NewCollection(name="other", access=Access(query=["*"])))
    assert refused.value.param == "access"
    with pytest.raises(Conflict):
        await world.catalogue.change(admin, "handbook", CollectionPatch(access=Access(query=["*"])))


@pytest.mark.parametrize("name", ["a-b", "1a", "a b", "ä", "a.b", 'a"'])
async def test_a_name_that_milvus_does_not_take_is_refused(world: World, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await world.catalogue.create(with_credential(ADMIN), NewCollection(name=name))
    assert refused.value.param == "name"


@pytest.mark.parametrize(
    ("credential", "error"),
    [(None, Forbidden), ("admin:wrong", CredentialRefused), (NOBODY, StoreDenied), (ADMIN, Conflict)],
)
async def test_that_a_name_is_taken_in_milvus_is_told_to_who_may_know(
    world: World, fake: FakeRightsStore, credential: str | None, error: type[Exception]
) -> None:
    for name in ("elsewhere", "handbook"):
        with pytest.raises(error):
            await world.catalogue.create(with_credential(credential), NewCollection(name=name))
    assert fake.made == [("handbook", ADMIN)]


async def test_what_a_failed_creation_leaves_never_clears_away_a_collection_of_milvus(
    world: World, fake: FakeRightsStore
) -> None:
    fake_create = fake.create

    async def denied(name: str, **options: Any) -> None:
        raise StoreDenied

    fake.create = denied  # type: ignore[method-assign]
    with pytest.raises(StoreDenied, match="`CreateCollection`"):
        await world.catalogue.create(with_credential(NOBODY), NewCollection(name="payroll"))
    fake.create = fake_create  # type: ignore[method-assign]
    await world.work()
    assert fake.dropped
    assert all(name.startswith("c_") for name, _ in fake.dropped)


async def test_dropping_is_done_as_the_caller_and_only_once(world: World, fake: FakeRightsStore) -> None:
    with pytest.raises(Forbidden, match="`manage`"):
        await world.catalogue.drop(with_credential(READER), "handbook")
    assert fake.dropped == []
    await world.catalogue.drop(with_credential(ADMIN), "handbook")
    assert fake.dropped == [("handbook", ADMIN)]
    await world.work()
    assert [name for name, _ in fake.dropped].count("handbook") == 1
    with pytest.raises(UnknownCollection):
        await world.catalogue.get(with_credential(ADMIN), "handbook")


async def test_what_milvus_refuses_to_drop_stays(world: World, fake: FakeRightsStore) -> None:
    fake.fails = None
    fake.people[READER] = Person(frozenset({"handbook"}), may("manage"))

    async def denied(name: str, **options: Any) -> None:
        raise StoreDenied

    fake.drop = denied  # type: ignore[method-assign]
    with pytest.raises(StoreDenied, match="`DropCollection`"):
        await world.catalogue.drop(with_credential(READER), "handbook")
    assert (await world.catalogue.get(with_credential(READER), "handbook")).name == "handbook"


@pytest.mark.parametrize("error", [CredentialRefused, StoreUnavailable])
async def test_a_credential_that_is_not_confirmed_learns_no_name(
    world: World, fake: FakeRightsStore, error: type[CredentialRefused]
) -> None:
    fake.fails = error()
    caller = with_credential(READER)
    said = []
    for name in ("handbook", "no_such", "vs_" + "0" * 32):
        with pytest.raises(error) as refused:
            await world.catalogue.get(caller, name)
        said.append(str(refused.value))
    assert len(set(said)) == 1
    with pytest.raises(error):
        await world.catalogue.list(caller)


async def test_uploads_need_insert(world: World) -> None:
    added = await world.add("handbook", "new", by=with_credential(INSERTER))
    assert added.status == "in_progress"
    with pytest.raises(Forbidden, match="`add`"):
        await world.add("handbook", "new", by=with_credential(READER))
