"""Files that were in a document, as documents of their own."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from plugins.collections import tables
from plugins.collections.members import Member, member_row
from plugins.collections.quotas import person_of
from plugins.collections.records import document_record
from tests.support.collections import World


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a.txt", "a.txt"), ("", "file-3"), ("  ", "file-3"), ("a\nb.txt", "file-3"), ("x" * 300, "x" * 255)],
)
async def test_its_name_can_be_shown_whatever_it_was(world: World, name: str, shown: str) -> None:
    await world.collection()
    parent = document_record(await world.row(await world.add("handbook", "text", metadata={"year": 2025})))
    row = member_row(parent, Member(2, name, None, 1, "0" * 64))
    assert row.filename == shown
    assert (row.attributes, row.properties, row.given) == ({"year": 2025}, None, None)


async def test_its_uploader_has_the_groups_and_roles_of_their_last_sign_in(world: World) -> None:
    seen = {"source": "kc", "username": "bob", "groups": ["guests"], "roles": ["reader"], "seen_at": 1.0}
    async with world.database.write() as connection:
        await connection.execute(insert(tables.people).values(**seen))
        bob = await person_of(connection, "kc/bob")
        nobody = await person_of(connection, "kc/carol")
    assert {"group:kc/guests", "role:kc/reader", "user:kc/bob", "*"} <= bob.subjects
    assert nobody.subjects == {"user:kc/carol", "*"}
