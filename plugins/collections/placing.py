"""An upload that passed all checks becomes a row, which is also its job."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.contracts import audience_key
from plugins.collections import tables
from plugins.collections.expiry import change_family, family
from plugins.collections.members import lacking
from plugins.collections.records import (
    DOCUMENT_COLUMNS,
    DOCUMENT_ID,
    LIVE_AS,
    CollectionRecord,
    DocumentRecord,
    document_record,
    fresh_document,
    fresh_job,
    now,
    there,
)
from plugins.collections.rights import Rights
from plugins.collections.uploads import MANAGE_AUDIENCE, CheckedUpload
from plugins.core.errors import Conflict, Forbidden
from plugins.core.identity import Principal
from plugins.core.metrics import refused


@dataclass(frozen=True)
class Placed:
    """What became of an upload."""

    row: DocumentRecord
    begun: tuple[str, ...] = ()
    """The documents whose jobs begin with it."""
    replaced: str | None = None
    """The revision that nothing needs any more."""


async def place(
    connection: AsyncConnection,
    principal: Principal,
    rights: Rights,
    collection: CollectionRecord,
    new: CheckedUpload,
    priority: int = 0,
) -> Placed:
    """Make the upload a row, which is also its job; or find the row that it already is.

    The revision of the answer's row is the upload's, unless its content is already there; then the files in
    it for which there was no room are looked for again. What replaces a
    document keeps its audience; only who manages the collection may bring another. The caller numbers the
    change (`changes.changed`) when all rows are there.

    Raises:
        Conflict: The id is that of a document which the principal may not replace.
        Forbidden: It brings another audience, which the principal may not change.
    """
    await add_audience(connection, collection.id, new.acl)
    existing = None
    if new.upload.document_id:
        existing = await find(connection, collection.id, new.document_id, lock=True)
    if existing is None:
        same = None if new.upload.document_id else await _same(connection, principal, rights, collection, new)
        if same is not None:
            return await _with_all_files(connection, principal, same)
        row = await _insert(connection, principal, collection, new, priority)
        return Placed(row, (row.id,))
    manages = rights.decide(principal, "manage", collection).allowed
    if existing.uploaded_by != principal.user_id and not manages:
        raise Conflict("Somebody else uploaded the document with this id; choose another.", param="id")
    if existing.gone:
        raise Conflict("The document with this id is being deleted; try again in a moment.", param="id")
    if new.acl is not None and new.acl != existing.acl and not manages:
        raise refused("manage", Forbidden(MANAGE_AUDIENCE, param="acl"))
    new = replace(new, acl=existing.acl if new.acl is None else new.acl)
    if _equal(existing, new):
        return await _with_all_files(connection, principal, existing)
    values = _brought(principal, new) | await _still_there(connection, existing, new)
    row = await revise(connection, existing, replaced=True, **values, priority=priority)
    return Placed(row, (row.id,), superseded(existing, row))


async def _with_all_files(
    connection: AsyncConnection, principal: Principal, existing: DocumentRecord
) -> Placed:
    """The document as it is; of its own, the principal gets the files for which there was no room, too."""
    begun: dict[str, DocumentRecord] = {}
    if existing.uploaded_by == principal.user_id:
        ids = await family(connection, existing.collection_id, existing.id)
        for document_id in sorted(await lacking(connection, existing.collection_id, ids)):
            row = await find(connection, existing.collection_id, document_id)
            if row is not None and row.status == "completed" and not row.gone:
                begun[row.id] = await revise(connection, row)
    return Placed(begun.get(existing.id, existing), tuple(begun))


async def _still_there(
    connection: AsyncConnection, existing: DocumentRecord, new: CheckedUpload
) -> dict[str, Any]:
    """What is kept of the searchable revision until an address is fetched, when only its bytes can make a
    difference: by `sha256`, file name and type the worker sees whether they do (`Queue.unchanged`).

    An address that is not fetched yet has a size of 0, and of an equal one has these already.
    """
    carries = existing.revision == existing.live_revision or existing.size == 0
    if (
        not existing.kind == new.kind == "url"
        or not carries
        or existing.acl_key != new.acl_key
        or existing.attributes != new.upload.metadata
        or existing.pipeline != new.pipeline
        or await lacking(connection, existing.collection_id, [existing.id])
    ):
        return {}
    names = ("sha256", "filename", "media_type", "properties", "warnings")
    return {name: getattr(existing, name) for name in names}


def _brought(principal: Principal, new: CheckedUpload) -> dict[str, Any]:
    """The columns of a document's row that come with an upload."""
    upload = new.upload
    return {
        "revision": new.revision,
        "kind": new.kind,
        "filename": upload.filename,
        "media_type": upload.media_type,
        "url": upload.url,
        "size": new.size,
        "sha256": "" if new.kind == "url" else upload.sha256,
        "attributes": dict(upload.metadata),
        "acl": new.acl,
        "acl_key": new.acl_key,
        "pipeline": new.pipeline,
        "properties": new.properties or None,
        "given": new.properties or None,
        "expires_at": new.expires_at,
        "batch_id": new.batch_id,
        "uploaded_by": principal.user_id,
    }


async def revise(
    connection: AsyncConnection, existing: DocumentRecord, *, replaced: bool = False, **values: Any
) -> DocumentRecord:
    """Give the document a new revision, to be ingested; the live one stays until that is complete.

    Whoever works on the old revision notices and leaves it. What was in the document has its audience at
    once, and is replaced when the new revision is there; where other content comes (``replaced``), until then
    only those read it whom both audiences admit.

    Raises:
        Conflict: Somebody else gave it another revision meanwhile, or deleted it.
    """
    current = await find(connection, existing.collection_id, existing.id, lock=True)
    if current is None or current.deleting or current.revision != existing.revision:
        raise Conflict("Somebody else changed this document at the same time; try again.")
    fresh = replace(current, **{**fresh_job(now()), **values}, stale=True)
    if current.live_revision == current.revision:
        fresh = replace(fresh, live_as={name: getattr(current, name) for name in LIVE_AS})
    table = tables.documents
    changed = {
        key: value
        for key, value in asdict(fresh).items()
        if key not in ("collection_id", "id", "worker", "lease_until", "live_revision")
    }
    its = (table.c.collection_id == current.collection_id, table.c.id == current.id)
    await connection.execute(update(table).where(*its).values(**changed))
    if fresh.acl_key != current.acl_key:
        await _change_audience_inside(connection, fresh, only_narrow=replaced)
    return fresh


async def _change_audience_inside(
    connection: AsyncConnection, outer: DocumentRecord, *, only_narrow: bool
) -> None:
    if not only_narrow:
        audience = {"acl": outer.acl, "acl_key": outer.acl_key}
        await change_family(connection, outer.collection_id, outer.id, **audience)
        return
    table, done = tables.documents, {outer.id}
    while new := set(await family(connection, outer.collection_id, outer.id)) - done:  # as `change_family`
        for document_id in sorted(new):
            row = await find(connection, outer.collection_id, document_id, lock=True)
            acl = _both(row.acl if row else [], outer.acl)
            await add_audience(connection, outer.collection_id, acl)
            its = (table.c.collection_id == outer.collection_id, table.c.id == document_id)
            audience = {"acl": acl, "acl_key": audience_key(acl)}
            await connection.execute(update(table).where(*its).values(**audience))
        done |= new


def _both(one: list[str] | None, other: list[str] | None) -> list[str] | None:
    """The audience of those whom both admit by the same subject; None and `*` admit everyone."""
    if one is None or "*" in one:
        return one if other is None else other
    if other is None or "*" in other:
        return one
    return [subject for subject in one if subject in other]


def superseded(before: DocumentRecord, after: DocumentRecord) -> str | None:
    """The revision whose files nothing needs any more when ``revise`` has made one of the other."""
    return before.revision if before.revision not in (after.revision, after.live_revision) else None


async def find(
    connection: AsyncConnection, collection_id: str, document_id: str, *, lock: bool = False
) -> DocumentRecord | None:
    """The document's row, also of one that is being deleted; with ``lock`` it stays so."""
    if not DOCUMENT_ID.fullmatch(document_id):
        return None
    table = tables.documents
    query = select(*DOCUMENT_COLUMNS).where(table.c.collection_id == collection_id, table.c.id == document_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return document_record(row) if row is not None else None


async def add_audience(connection: AsyncConnection, collection_id: str, acl: list[str] | None) -> None:
    """Write down who an audience key stands for; searches only admit keys that they find here."""
    if acl is None:
        return
    values = {"collection_id": collection_id, "key": audience_key(acl), "subjects": acl}
    try:
        async with connection.begin_nested():
            await connection.execute(insert(tables.audiences).values(**values))
    except IntegrityError:
        return  # it is there already


def _equal(row: DocumentRecord, new: CheckedUpload) -> bool:
    return (
        row.kind == new.kind != "url"
        and row.status not in ("failed", "cancelled")
        and row.sha256 == new.upload.sha256
        and row.acl_key == new.acl_key
        and row.pipeline == new.pipeline
        and (row.given or {}) == new.properties
        and row.attributes == new.upload.metadata
        and row.expires_at == new.expires_at
    )


async def _same(
    connection: AsyncConnection,
    principal: Principal,
    rights: Rights,
    collection: CollectionRecord,
    new: CheckedUpload,
) -> DocumentRecord | None:
    """A document of the same content that the principal uploaded or may read."""
    table = tables.documents
    query = (
        select(*DOCUMENT_COLUMNS)
        .where(table.c.collection_id == collection.id, table.c.sha256 == new.upload.sha256)
        .where(there(), table.c.parent_id.is_(None))  # what is in another goes with that
        .order_by(table.c.created_at)
    )
    queries = rights.decide(principal, "query", collection).allowed
    for row in await connection.execute(query):
        record = document_record(row)
        readable = queries and rights.admits(principal, record.acl)
        if _equal(record, new) and (readable or record.uploaded_by == principal.user_id):
            return record
    return None


async def _insert(
    connection: AsyncConnection,
    principal: Principal,
    collection: CollectionRecord,
    new: CheckedUpload,
    priority: int,
) -> DocumentRecord:
    record = DocumentRecord(
        **fresh_document(now()),
        **_brought(principal, new),
        collection_id=collection.id,
        id=new.document_id,
        deleting=False,
        priority=priority,
    )
    try:
        async with connection.begin_nested():
            await connection.execute(insert(tables.documents).values(**asdict(record)))
    except IntegrityError as error:
        raise Conflict("A document with this id was uploaded at the same time.", param="id") from error
    return record
