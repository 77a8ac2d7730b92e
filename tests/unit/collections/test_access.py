"""Grants: replaced as a whole, never so that their giver is shut out by accident; and rights explained."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from crawler.stores.milvus import Milvus
from plugins.collections.access import AccessService, replace_grants
from plugins.collections.people import People
from plugins.collections.records import Gate
from plugins.collections.sightings import Sightings
from plugins.core.config import Policy
from plugins.core.errors import Conflict, Forbidden, UnknownCollection
from plugins.core.identity import RIGHTS, Principal, Right
from plugins.core.ports import Directory
from plugins.core.shapes import Access
from tests.support.collections import World, a_config, make_tables, person
from tests.support.directory import FixedDirectory

BOB = person("bob")
ROOT = person("root", roles=["admin"])
ALICES = ["user:kc/alice"]


def service(world: World, **directories: Directory) -> AccessService:
    return AccessService(world.database, world.rights, People(world.database, world.rights, directories))


async def test_a_manager_by_group_keeps_manage_by_the_group(world: World) -> None:
    await world.collection(manage=["group:kc/staff"])
    granted = Access(manage=["group:kc/staff"])
    assert await service(world).replace(world.alice, "handbook", granted) == granted
    with pytest.raises(Conflict):
        await service(world).replace(world.alice, "handbook", Access(manage=["group:kc/others"]))


async def test_a_collection_is_handed_over_by_two_people(world: World) -> None:
    await world.collection()
    await service(world).replace(world.alice, "handbook", Access(manage=[*ALICES, "user:kc/bob"]))
    await service(world).replace(BOB, "handbook", Access(manage=["user:kc/bob"]))
    with pytest.raises(UnknownCollection):
        await service(world).get(world.alice, "handbook")


async def test_an_admin_of_the_policy_repairs_what_has_no_manager_left(tmp_path: Path, store: Milvus) -> None:
    config = a_config(tmp_path, policy=[Policy(names="*", manage=["role:kc/admin"])])
    await make_tables(config)
    world = World(config, store)
    await world.collection()
    assert await service(world).replace(ROOT, "handbook", Access()) == Access()
    with pytest.raises(UnknownCollection):
        await service(world).get(world.alice, "handbook")
    await service(world).replace(ROOT, "handbook", Access(manage=ALICES))
    assert await service(world).get(world.alice, "handbook") == Access(manage=ALICES)
    await world.database.close()


async def test_two_managers_who_shut_each_other_out_at_once_do_not_both_succeed(world: World) -> None:
    await world.collection(manage=["user:kc/bob"])
    answers = await asyncio.gather(
        service(world).replace(world.alice, "handbook", Access(manage=ALICES)),
        service(world).replace(BOB, "handbook", Access(manage=["user:kc/bob"])),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, Forbidden | UnknownCollection)]
    assert len(refused) == 1


async def test_who_lost_manage_while_they_asked_changes_nothing(world: World) -> None:
    created = await world.collection()

    async def take() -> None:
        async with world.database.write() as connection:
            record = await Gate(world.database, world.rights).find(connection, created.id)
            await replace_grants(connection, world.rights, BOB, record, Access(manage=["user:kc/bob"]))

    with pytest.raises(Forbidden):
        await take()
    assert await service(world).get(world.alice, "handbook") == Access(manage=ALICES)


async def test_grants_of_a_collection_that_takes_them_from_milvus_are_not_ours(world: World) -> None:
    created = await world.collection()

    async def give() -> None:
        async with world.database.write() as connection:
            record = await Gate(world.database, world.rights).find(connection, created.id)
            theirs = replace(record, kind="milvus")
            await replace_grants(connection, world.rights, world.alice, theirs, Access(manage=ALICES))

    with pytest.raises(Conflict, match="Milvus"):
        await give()


async def allowed(world: World, access: AccessService, user: str) -> tuple[str, dict[str, str]]:
    told = await access.effective(world.alice, "handbook", user)
    return told.known_from, {right: view.rule for right, view in told.rights.items() if view.allowed}


async def test_rights_of_somebody_never_seen_are_those_by_name_and_of_everyone(world: World) -> None:
    await world.collection("open-handbook", add=["user:kc/bob"], manage=["group:kc/staff"])
    told = await service(world).effective(world.alice, "open-handbook", "user:kc/bob")
    assert (told.known_from, told.known_at, told.groups) == ("nothing", None, [])
    rules = {right: view.rule for right, view in told.rights.items() if view.allowed}
    assert rules == {
        "discover": "collections.policy[0].discover: *",
        "query": "collections.policy[0].query: *",
        "add": "grant of add: user:kc/bob",
    }
    assert told.rights["manage"].rule == "nothing grants manage"


async def test_rights_of_somebody_seen_count_the_groups_of_then(world: World) -> None:
    await world.collection(query=["group:kc/finance"], add=["role:kc/writer"])
    assert await allowed(world, service(world), "kc/bob") == ("nothing", {})
    sightings = Sightings(world.database)
    await sightings(person("bob", "finance", roles=["writer"]))
    await sightings.written()
    assert await allowed(world, service(world), "kc/bob") == (
        "sign_in",
        {"query": "grant of query: group:kc/finance", "add": "grant of add: role:kc/writer"},
    )


async def test_what_the_directory_says_goes_before_what_was_seen(world: World) -> None:
    await world.collection(query=["group:kc/finance"], add=["role:kc/writer"])
    sightings = Sightings(world.database)
    await sightings(person("bob", "finance"))
    await sightings(person("carol", "finance"))
    await sightings.written()
    access = service(world, kc=FixedDirectory(bob=((), ("writer",))))
    assert await allowed(world, access, "kc/bob") == ("directory", {"add": "grant of add: role:kc/writer"})
    assert (await allowed(world, access, "kc/carol"))[0] == "sign_in"


async def test_what_is_explained_is_what_is_enforced(world: World) -> None:
    created = await world.collection(
        query=["group:kc/finance"], add=["user:kc/bob"], discover=["user:kc/carol"]
    )
    sightings = Sightings(world.database)
    for who in (person("bob"), person("carol", "finance"), person("dave", "finance", source="other")):
        await sightings(who)
        await sightings.written()
        _, rules = await allowed(world, service(world), who.user_id)
        assert list(rules) == await enforced(world, who, created.id)


async def enforced(world: World, who: Principal, ref: str) -> list[Right]:
    """The rights without which the check that each route makes refuses them."""
    gate = Gate(world.database, world.rights)
    held: list[Right] = []
    async with world.database.read() as connection:
        for right in RIGHTS:
            with suppress(Forbidden, UnknownCollection):
                await gate.collection(connection, who, ref, right)
                held.append(right)
    return held
