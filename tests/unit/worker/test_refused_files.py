"""Files for which there was no room: they take none, and are taken when their archive is uploaded again."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from sqlalchemy import select

from plugins.collections import tables
from plugins.core.config import LimitsConfig, Quota
from plugins.core.document_shapes import DocumentView
from plugins.core.errors import TooLarge
from tests.support.collections import World, an_upload


def packed(**files: Any) -> bytes:
    """A ZIP of these files: of text, or of bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, inside in files.items():
            archive.writestr(zipfile.ZipInfo(name.replace("_", ".")), inside)
    return content.getvalue()


async def upload(world: World, content: bytes, **fields: Any) -> DocumentView:
    spooled = world.documents.spool_dir / "upload"
    spooled.write_bytes(content)
    values = {
        "markdown": None,
        "path": spooled,
        "size": len(content),
        "filename": "files.zip",
        "media_type": "application/zip",
        **fields,
    }
    [added] = await world.documents.add(
        world.alice, "handbook", [an_upload(content.decode("latin-1"), **values)]
    )
    return added


async def listed(world: World) -> dict[str, str]:
    documents = (await world.documents.list(world.alice, "handbook")).data
    return {document.filename: document.status for document in documents}


def limited(world: World, **quota: Any) -> World:
    limits = LimitsConfig(quotas=[Quota(subjects=["user:kc/alice"], **quota)])
    return World(world.config.model_copy(update={"limits": limits}), world.store)


ARCHIVE = packed(a_txt="first words", b_txt="second words", c_txt="third words")


async def test_they_take_no_room(world: World) -> None:
    await world.collection()
    strict = limited(world, max_documents=2)
    await upload(strict, ARCHIVE)
    await strict.work()
    assert list((await listed(world)).values()).count("failed") == 2
    with pytest.raises(TooLarge, match="it would be 3"):
        await strict.add("handbook", "one more")
    await strict.database.close()


@pytest.mark.parametrize("document_id", [None, "files-1"])
async def test_they_are_taken_when_the_archive_is_uploaded_again_and_there_is_room(
    world: World, document_id: str | None
) -> None:
    await world.collection()
    strict = limited(world, max_documents=2)
    first = await upload(strict, ARCHIVE, document_id=document_id)
    await strict.work()
    await strict.database.close()
    wide = limited(world, max_documents=3)
    again = await upload(wide, ARCHIVE, document_id=document_id)
    assert (again.id, again.status) == (first.id, "in_progress")
    assert await world.found(world.alice, "words", "handbook") != [], "what was searchable stays"
    await wide.work()
    await wide.database.close()
    assert await listed(world) == {
        "files.zip": "completed",
        "a.txt": "completed",
        "b.txt": "completed",
        "c.txt": "failed",
    }
    await upload(world, ARCHIVE, document_id=document_id)
    await world.work()
    assert set((await listed(world)).values()) == {"completed"}
    assert (await upload(world, ARCHIVE, document_id=document_id)).status == "completed"
    table = tables.documents
    async with world.database.read() as connection:
        assert len((await connection.execute(select(table.c.id))).all()) == 4


async def test_they_are_taken_also_where_they_lie_in_a_file_in_the_archive(world: World) -> None:
    await world.collection()
    nested = packed(inner_zip=packed(a_txt="first words"))
    strict = limited(world, max_documents=2)
    await upload(strict, nested)
    await strict.work()
    await strict.database.close()
    assert (await listed(world))["a.txt"] == "failed"
    await upload(world, nested)
    await world.work()
    assert set((await listed(world)).values()) == {"completed"}
