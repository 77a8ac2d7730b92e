"""Files that were in a document, a mail's attachments or an archive's members: documents of their own.

Their ids tell the parent's revision and their place in it, so that to make them twice is harmless.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import tables
from plugins.collections.records import DocumentRecord, fresh_document, has_controls, now

MAX_DEPTH = 3
"""How deep files lie in files in files before they are left out."""
MAX_INSIDE = 10_000
"""Files in one that was uploaded, and in those: an archive of archives may be small and hold millions."""

EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Member:
    """A file that was in a document."""

    position: int
    """From 0 in the order of the document."""
    filename: str
    media_type: str | None
    size: int
    """Bytes."""
    sha256: str
    """Of the bytes, in hex."""


def member_id(parent: DocumentRecord, position: int) -> str:
    """The id of the document that the file becomes."""
    return f"{_prefix(parent)}{position:05d}"


def member_revision(document_id: str, sha256: str) -> str:
    """The revision of a member's content."""
    return hashlib.sha256(f"{document_id}/{sha256}".encode()).hexdigest()[:32]


def _prefix(parent: Any) -> str:
    """Of a document's row, or of what names its revision."""
    its = f"{parent.collection_id}/{parent.id}/{parent.revision}"
    return f"file-{hashlib.sha256(its.encode()).hexdigest()[:24]}-"


async def known_members(connection: AsyncConnection, parent: DocumentRecord) -> frozenset[str]:
    """The ids of the members of all revisions."""
    table = tables.documents
    query = select(table.c.id).where(
        table.c.collection_id == parent.collection_id, table.c.parent_id == parent.id
    )
    return frozenset(await connection.scalars(query))


async def other_members(connection: AsyncConnection, parent: DocumentRecord) -> list[str]:
    """The ids of what was in other revisions of the document, and of what was in that."""
    table, prefix = tables.documents, _prefix(parent)
    found = level = [
        name for name in sorted(await known_members(connection, parent)) if not name.startswith(prefix)
    ]
    while level:
        inside = select(table.c.id).where(
            table.c.collection_id == parent.collection_id, table.c.parent_id.in_(level)
        )
        level = list(await connection.scalars(inside))
        found = found + level
    return found


async def inside(connection: AsyncConnection, row: DocumentRecord) -> int:
    """How many documents come, by way of others or not, from the upload that this one comes from."""
    table = tables.documents
    columns = select(table.c.collection_id, table.c.id, table.c.revision, table.c.parent_id)
    its = columns.where(table.c.collection_id == row.collection_id)
    level: Sequence[Any] = (await connection.execute(its.where(table.c.id == row.id))).all()
    while level and level[0].parent_id is not None:
        level = (await connection.execute(its.where(table.c.id == level[0].parent_id))).all()
    count = 0
    while level:
        prefixes = {parent.id: _prefix(parent) for parent in level}
        found = await connection.execute(its.where(table.c.parent_id.in_(prefixes)))
        level = [one for one in found if one.id.startswith(prefixes[one.parent_id])]
        count += len(level)
    return count


def member_row(parent: DocumentRecord, member: Member) -> DocumentRecord:
    """The file as a document, which is also its job: of the parent's uploader, audience and attributes."""
    document_id = member_id(parent, member.position)
    name = member.filename[:255]
    return replace(
        parent,
        **fresh_document(now()),
        id=document_id,
        revision=member_revision(document_id, member.sha256),
        kind="file",
        filename=name if name.strip() and not has_controls(name) else f"file-{member.position + 1}",
        media_type=member.media_type,
        url=None,
        size=member.size,
        sha256=member.sha256,
        properties=None,
        parent_id=parent.id,
        depth=parent.depth + 1,
        given=None,
    )


def refused(row: DocumentRecord, code: str, message: str) -> DocumentRecord:
    """The document as one that is neither kept nor processed, with the reason."""
    return replace(row, size=0, pending=False, status="failed", error_code=code, error_message=message)


def never_taken() -> ColumnElement[bool]:
    """Which rows only say that there was no room for a file: nothing of it is kept."""
    table = tables.documents
    return and_(table.c.size == 0, table.c.parent_id.is_not(None), table.c.sha256 != EMPTY)


async def lacking(connection: AsyncConnection, collection_id: str, ids: Collection[str]) -> frozenset[str]:
    """Those of the documents for whose files there was no room."""
    table = tables.documents
    query = select(table.c.parent_id).where(
        table.c.collection_id == collection_id,
        table.c.parent_id.in_(ids),
        never_taken(),
        table.c.deleting.is_(False),
    )
    return frozenset(await connection.scalars(query))


async def forget_refused(connection: AsyncConnection, parent: DocumentRecord, ids: Collection[str]) -> int:
    """Remove the rows of those files in the document that were never taken; they can be taken anew.

    Returns:
        How many.
    """
    table = tables.documents
    gone = delete(table).where(
        table.c.collection_id == parent.collection_id,
        table.c.parent_id == parent.id,
        table.c.id.in_(ids),
        never_taken(),
        table.c.deleting.is_(False),
    )
    return int((await connection.execute(gone)).rowcount)


async def insert_members(connection: AsyncConnection, rows: Sequence[DocumentRecord]) -> None:
    """Write the rows of members that are not there yet."""
    if rows:
        await connection.execute(insert(tables.documents), [asdict(row) for row in rows])
