"""Whom grants can name: those of a directory, else those who were seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, text

from plugins.collections import tables
from plugins.collections.people import People
from plugins.collections.sightings import Sightings
from plugins.core.errors import Forbidden, InvalidRequest
from plugins.core.identity import Principal
from tests.support.collections import World, person
from tests.support.directory import FixedDirectory


async def rows(world: World) -> list[Any]:
    async with world.database.read() as connection:
        return list(await connection.execute(select(tables.people).order_by(tables.people.c.username)))


async def rename(world: World, table: str, name: str) -> None:
    async with world.database.write() as connection:
        await connection.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def note(sightings: Sightings, *people: Principal) -> None:
    for who in people:
        await sightings(who)
    await sightings.written()


async def test_a_person_is_noted_when_new_when_changed_and_once_an_hour(world: World) -> None:
    clock = Clock()
    sightings = Sightings(world.database, clock=clock)
    await note(sightings, person("bob", "staff"))
    [first] = await rows(world)
    assert (first.source, first.username, first.groups, first.roles) == ("kc", "bob", ["staff"], [])
    await note(sightings, person("bob", "staff"))
    assert await rows(world) == [first]
    await note(sightings, person("bob", "staff", "finance"))
    [changed] = await rows(world)
    assert changed.groups == ["finance", "staff"]
    clock.now += 3599
    await note(sightings, person("bob", "staff", "finance"))
    assert await rows(world) == [changed]
    clock.now += 2
    await note(sightings, person("bob", "staff", "finance"))
    [later] = await rows(world)
    assert later.seen_at > changed.seen_at


async def test_the_same_name_of_two_sources_is_two_people(world: World) -> None:
    sightings = Sightings(world.database)
    await note(sightings, person("bob", "staff"), person("bob", source="other"))
    assert [(row.source, row.groups) for row in await rows(world)] == [("kc", ["staff"]), ("other", [])]


async def test_several_processes_note_the_same_person_at_once(world: World) -> None:
    both = [Sightings(world.database) for _ in range(4)]
    await asyncio.gather(*(note(sightings, person("bob")) for sightings in both))
    assert len(await rows(world)) == 1


async def test_a_failing_database_refuses_no_sign_in_and_is_tried_again_later(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    sightings = Sightings(world.database, clock=clock)
    await rename(world, "people", "elsewhere")
    await note(sightings, person("bob"))
    await rename(world, "elsewhere", "people")
    assert "could not be noted" in caplog.text
    await note(sightings, person("bob"))
    assert await rows(world) == [], "not at every request"
    clock.now += 61
    await note(sightings, person("bob"))
    assert len(await rows(world)) == 1


async def test_no_token_of_a_person_is_kept(world: World) -> None:
    columns = set(tables.people.c.keys())
    assert columns == {"source", "username", "email", "groups", "roles", "seen_at"}


async def test_people_of_a_directory_stand_beside_those_who_were_seen(world: World) -> None:
    await note(Sightings(world.database), person("zoe", source="other"), person("ghost", source="gone"))
    people = People(world.database, world.rights, {"kc": FixedDirectory(ann=((), ()), bob=((), ()))})
    every = await people.users(world.alice)
    assert [view.subject for view in every.data] == ["user:kc/ann", "user:kc/bob", "user:other/zoe"]
    found: list[str] = []
    for _ in every.data:
        page = await people.users(world.alice, after=found[-1] if found else None, limit=1)
        found += [view.subject for view in page.data]
        assert page.has_more == (len(found) < 3)
    assert found == [view.subject for view in every.data]


async def test_roles_and_groups_are_those_of_the_directory_and_of_who_was_seen(world: World) -> None:
    gone = person("ghost", "ghosts", source="gone", roles=["haunter"])
    await note(Sightings(world.database), gone, person("zoe", "staff", source="other", roles=["reader"]))
    people = People(world.database, world.rights, {"kc": FixedDirectory(ann=(("finance",), ("writer",)))})
    assert [view.subject for view in (await people.roles(world.alice)).data] == [
        "group:kc/finance",
        "group:other/staff",
        "role:kc/writer",
        "role:other/reader",
    ]


async def test_who_neither_manages_nor_creates_learns_of_nobody(world: World) -> None:
    people = People(world.database, world.rights, {})
    for attempt in (people.users(person("bob")), people.roles(person("bob"))):
        with pytest.raises(Forbidden, match="`manage`"):
            await attempt


@pytest.mark.parametrize("user", ["bob", "nowhere/bob", "group:kc/staff", "*", "user:kc/", "kc/a\x00b"])
async def test_a_person_is_named_with_their_source_where_there_are_several(world: World, user: str) -> None:
    with pytest.raises(InvalidRequest):
        await People(world.database, world.rights, {}).known(user)
