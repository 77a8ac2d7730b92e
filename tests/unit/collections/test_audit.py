"""The audit log: written with the change or not at all, never changed, not to be flooded."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from plugins.collections import audit, tables
from plugins.collections.audit import AuditLog, Refusals, Refused, Wanted
from plugins.collections.rights import Rights
from plugins.core.config import AuditConfig
from plugins.core.errors import Forbidden, StoreUnavailable
from plugins.core.logs import about
from plugins.core.shapes import AuditEntry
from tests.support.collections import World, person

BOB = person("bob")
AUDITOR = person("auditor")


async def logged(world: World, **wanted: Any) -> list[AuditEntry]:
    config = world.config.model_copy(update={"audit": AuditConfig(readers=["user:kc/auditor"])})
    return (await AuditLog(world.database, Rights(config)).list(AUDITOR, Wanted(**wanted))).data


def refused(user: str = "kc/bob", **fields: Any) -> Refused:
    values = {"status": 404, "code": "not_found", "collection": None, "document": None, **fields}
    return Refused(user_id=user, action="GET /v1/collections/{collection}", **values)


class Boom(Exception):
    pass


async def test_a_change_that_is_rolled_back_leaves_no_entry(world: World) -> None:
    async def fails() -> None:
        async with world.database.write() as connection:
            await audit.record(connection, world.alice, "collection.change", collection_id="vs_1")
            raise Boom

    with pytest.raises(Boom):
        await fails()
    assert await logged(world) == []


async def test_an_entry_names_the_request_that_is_running(world: World) -> None:
    about(request_id="r-1", peer="192.0.2.7")
    async with world.database.write() as connection:
        await audit.record(connection, world.alice, "document.delete", collection_id="vs_1", document_id="d")
    [entry] = await logged(world)
    assert (entry.user, entry.peer, entry.request_id) == ("kc/alice", "192.0.2.7", "r-1")
    assert (entry.action, entry.collection_id, entry.document_id) == ("document.delete", "vs_1", "d")


@pytest.mark.parametrize("statement", [update(tables.audit).values(user_id="kc/eve"), delete(tables.audit)])
async def test_the_database_itself_refuses_to_change_or_delete_entries(world: World, statement: Any) -> None:
    await Refusals(world.database).note(refused())
    before = await logged(world)
    with pytest.raises(DBAPIError, match="append-only"):
        async with world.database.write() as connection:
            await connection.execute(statement)
    assert await logged(world) == before


async def test_of_a_flood_only_the_first_are_written_and_the_rest_are_counted(world: World) -> None:
    moment = 0.0
    refusals = Refusals(world.database, per_person=3, clock=lambda: moment)
    for _ in range(10):
        await refusals.note(refused())
    await refusals.note(refused("kc/carol"))
    moment = 61.0
    for _ in range(5):
        await refusals.note(refused())
    written = [(entry.user, entry.detail.get("left_out")) for entry in await logged(world)]
    assert written == [*[("kc/bob", None)] * 3, ("kc/carol", None), ("kc/bob", 7), *[("kc/bob", None)] * 2]


async def test_many_people_together_do_not_flood_it_either(world: World) -> None:
    refusals = Refusals(world.database, in_all=4, clock=lambda: 0.0)
    for number in range(10):
        await refusals.note(refused(f"kc/user{number}"))
    assert len(await logged(world)) == 4


async def test_a_refusal_names_the_collection_by_its_id_and_no_words_of_the_client(world: World) -> None:
    created = await world.collection("résumé")
    refusals = Refusals(world.database)
    for ref in ("re\u0301sume\u0301", created.id, "my secret plan", "a\x00b", "vs_" + "a" * 5000):
        await refusals.note(refused(collection=ref, document="../../etc"))
    found = await logged(world, result="refused")
    assert [entry.collection_id for entry in found] == [created.id, created.id, None, None, None]
    assert {entry.document_id for entry in found} == {None}


async def test_a_refusal_that_cannot_be_written_is_logged_and_harms_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.database.write() as connection:
        await connection.execute(text("ALTER TABLE audit RENAME TO elsewhere"))
    await Refusals(world.database).note(refused())
    assert "could not be written" in caplog.text


async def test_an_export_ends_where_the_log_ended_when_it_began(world: World) -> None:
    refusals = Refusals(world.database)
    await refusals.note(refused())
    await refusals.note(refused())
    config = world.config.model_copy(update={"audit": AuditConfig(readers=["*"])})
    seen = []
    async for entry in AuditLog(world.database, Rights(config)).export(BOB, Wanted()):
        seen.append(entry.id)
        await refusals.note(refused("kc/carol"))
    assert len(seen) == 2


async def test_nobody_reads_it_by_default(world: World) -> None:
    log = AuditLog(world.database, world.rights)
    with pytest.raises(Forbidden, match="`audit`"):
        await log.list(world.alice, Wanted())
    with pytest.raises(Forbidden, match="`audit`"):
        log.export(world.alice, Wanted())


async def test_a_collection_that_could_not_be_made_is_not_in_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*arguments: Any, **options: Any) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(world.store, "create", fails)
    with pytest.raises(StoreUnavailable):
        await world.collection()
    assert await logged(world) == []


async def test_what_is_dropped_stays_in_the_log(world: World) -> None:
    created = await world.collection()
    await world.catalogue.drop(world.alice, created.id)
    await world.work()
    async with world.database.read() as connection:
        assert (await connection.execute(select(tables.collections))).all() == []
    assert [entry.action for entry in await logged(world, collection=created.id)] == [
        "collection.create",
        "collection.drop",
    ]
