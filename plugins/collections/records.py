"""Rows of the tables as typed values, and the one way to a collection: through the right-check."""

from __future__ import annotations

import re
import time
import unicodedata
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.contracts import audience_key
from crawler.store import Audience, Metric
from plugins.collections import tables
from plugins.collections.database import Database
from plugins.collections.rights import Grants, Rights
from plugins.core.errors import Forbidden, UnknownCollection
from plugins.core.identity import Principal, Right
from plugins.core.metrics import refused
from plugins.core.telemetry import traceparent

Status = Literal["in_progress", "completed", "cancelled", "failed"]

EVERYONE_KEY = audience_key(None)
COLLECTION_ID = re.compile(r"vs_[A-Za-z0-9]{24,}")
"""No name begins like this."""
DOCUMENT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def new_id(prefix: str) -> str:
    """An opaque id of 128 random bits."""
    return f"{prefix}{uuid.uuid4().hex}"


def has_controls(text: str) -> bool:
    """Whether the text has control characters, line separators or halves of surrogate pairs."""
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def now() -> float:
    """Seconds since 1970 (UTC)."""
    return time.time()


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection; `grants` may hold only those that name a certain principal."""

    id: str
    name: str | None
    state: str
    kind: str
    description: str
    metadata: dict[str, Any]
    pipeline: str
    embedding_model: str
    dimension: int
    metric: Metric
    retrieval: str
    store_name: str
    created_by: str
    created_at: float
    written_at: float
    adopted: dict[str, Any] | None = None
    reindex: dict[str, Any] | None = None
    grants: Grants = field(default_factory=dict)
    held: frozenset[Right] = frozenset()
    """The rights that Milvus gives the principal it was looked up for; of the kind `milvus` only."""


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document, which is also its job. The columns are explained in `tables`."""

    collection_id: str
    id: str
    revision: str
    live_revision: str | None
    kind: str
    filename: str
    media_type: str | None
    url: str | None
    size: int
    sha256: str
    attributes: dict[str, Any]
    acl: list[str] | None
    acl_key: str
    pipeline: str
    title: str | None
    pages: int | None
    chunks: int
    uploaded_by: str
    created_at: float
    deleting: bool
    stale: bool
    pending: bool
    job_id: str
    status: Status
    stage: str
    done: int
    total: int | None
    attempts: int
    not_before: float
    worker: str | None
    lease_until: float
    error_code: str | None
    error_message: str | None
    properties: dict[str, Any] | None = None
    given: dict[str, Any] | None = None
    warnings: list[str] | None = None
    expires_at: float | None = None
    batch_id: str | None = None
    parent_id: str | None = None
    depth: int = 0
    priority: int = 0
    started_at: float = 0.0
    change: int = 0
    built_in: str | None = None
    built_chunks: int | None = None
    live_as: dict[str, Any] | None = None
    traceparent: str | None = None

    @property
    def gone(self) -> bool:
        """Whether it is to be shown to nobody any more: deleted, or its time is over."""
        return self.deleting or (self.expires_at is not None and self.expires_at <= now())


def fresh_job(moment: float) -> dict[str, Any]:
    """The columns of a revision that nobody has worked on yet."""
    return {
        "pending": True,
        "status": "in_progress",
        "stage": "queued",
        "done": 0,
        "total": None,
        "attempts": 0,
        "not_before": moment,
        "started_at": 0.0,
        "error_code": None,
        "error_message": None,
        "warnings": None,
        "traceparent": traceparent(),
    }


def fresh_document(moment: float) -> dict[str, Any]:
    """The columns of a document of which there is no revision yet but the one that is to be ingested."""
    return {
        **fresh_job(moment),
        "job_id": new_id("job_"),
        "created_at": moment,
        "live_revision": None,
        "title": None,
        "pages": None,
        "chunks": 0,
        "stale": False,
        "worker": None,
        "lease_until": 0.0,
        "built_in": None,
        "built_chunks": None,
        "live_as": None,
    }


DOCUMENT_COLUMNS = [tables.documents.c[f.name] for f in fields(DocumentRecord)]


LIVE_AS = ("filename", "media_type", "attributes", "acl", "acl_key")
"""What belongs to a revision, and is kept of the live one while another is not complete."""


def live_as(row: DocumentRecord | Row[Any]) -> Mapping[str, Any]:
    """The columns of `LIVE_AS` as they are of the revision that searches find."""
    kept = row.live_as if row.live_revision not in (None, row.revision) else None
    return {name: getattr(row, name) for name in LIVE_AS} | (kept or {})


def there() -> ColumnElement[bool]:
    """Which documents' rows are to be shown: those that are not ``gone``."""
    table = tables.documents
    return and_(table.c.deleting.is_(False), or_(table.c.expires_at.is_(None), table.c.expires_at > now()))


def document_record(row: Row[Any]) -> DocumentRecord:
    return DocumentRecord(**row._mapping)


def collection_record(row: Row[Any], grants: Grants) -> CollectionRecord:
    return CollectionRecord(**row._mapping, grants=grants)


async def audiences(
    connection: AsyncConnection, principal: Principal, collection_ids: Sequence[str]
) -> dict[str, Audience]:
    """For each collection the keys of its audiences that admit the principal."""
    admitted: dict[str, set[str]] = {collection_id: {EVERYONE_KEY} for collection_id in collection_ids}
    table = tables.audiences
    query = select(table).where(table.c.collection_id.in_(collection_ids))
    for row in await connection.execute(query):
        if not principal.subjects.isdisjoint(row.subjects):
            admitted[row.collection_id].add(row.key)
    return {collection_id: frozenset(keys) for collection_id, keys in admitted.items()}


class Gate:
    """Finds collections for a principal. What the principal has no right to is as if it did not exist."""

    def __init__(self, database: Database, rights: Rights) -> None:
        self.database = database
        self.rights = rights

    async def find(self, connection: AsyncConnection, ref: str) -> CollectionRecord:
        """The collection with this id or name, with all its grants, whoever asks.

        Raises:
            UnknownCollection: There is none.
        """
        if has_controls(ref):  # Postgres takes no NUL
            raise UnknownCollection
        ref = unicodedata.normalize("NFC", ref)
        table = tables.collections
        column = table.c.id if COLLECTION_ID.fullmatch(ref) else table.c.name
        found = await connection.execute(select(table).where(column == ref, table.c.state == "ready"))
        row = found.one_or_none()
        if row is None:
            raise UnknownCollection
        grants = tables.grants
        of_it = select(grants.c.right, grants.c.subject).where(grants.c.collection_id == row.id)
        held: defaultdict[Right, set[str]] = defaultdict(set)
        for right, subject in await connection.execute(of_it):
            held[right].add(subject)
        return collection_record(row, {right: frozenset(subjects) for right, subjects in held.items()})

    async def collection(
        self, connection: AsyncConnection, principal: Principal, ref: str, *any_of: Right
    ) -> CollectionRecord:
        """The collection with this id or name, on which the principal holds one of the rights.

        Raises:
            UnknownCollection: There is none, or the principal has no right to it at all.
            Forbidden: The principal has rights to it, but none of these.
        """
        try:
            record = await self.as_seen(principal, await self.find(connection, ref))
        except UnknownCollection as error:
            await self._credential_is_good(connection, principal)
            refused(any_of[0], error)
            raise
        if not self.rights.permissions(principal, record):
            await self._credential_is_good(connection, principal)
            raise refused(any_of[0], UnknownCollection())
        if not any(self.rights.decide(principal, right, record).allowed for right in any_of):
            message = f"This needs the right `{any_of[0]}` to the collection `{ref}`, which you do not have."
            raise refused(any_of[0], Forbidden(message))
        return record

    async def prepare(self, principal: Principal) -> None:
        """Ask what is needed to judge the principal, so that it need not be asked inside a transaction."""
        if self.rights.milvus:
            await self.rights.standing(principal)

    async def as_seen(self, principal: Principal, record: CollectionRecord) -> CollectionRecord:
        """The record with the rights that Milvus gives the principal, where it is Milvus that gives them."""
        if record.kind != "milvus":
            return record
        standing = await self.rights.standing(principal, since=record.written_at)
        return replace(record, held=standing.rights(record.store_name))

    async def _credential_is_good(self, connection: AsyncConnection, principal: Principal) -> None:
        """Whether a collection was not found is only said to who could be told apart: else a wrong
        credential would learn which names Milvus guards.

        Raises:
            CredentialRefused: Milvus does not accept the principal's credential.
            StoreUnavailable: That cannot be asked.
        """
        if principal.store_credential is None:
            return
        table = tables.collections
        guarded = select(table.c.id).where(table.c.kind == "milvus", table.c.state == "ready").limit(1)
        if self.rights.milvus or (await connection.execute(guarded)).one_or_none() is not None:
            (await self.rights.standing(principal)).check()

    async def collections(
        self, connection: AsyncConnection, principal: Principal, right: Right
    ) -> list[CollectionRecord]:
        """All collections on which the principal holds the right, by name; with the principal's grants.

        Raises:
            CredentialRefused: Some are Milvus's to judge, and it does not accept the principal's credential.
            StoreUnavailable: Some are Milvus's to judge, and it cannot be asked.
        """
        table, grants = tables.collections, tables.grants
        held: dict[str, dict[Right, frozenset[str]]] = {}
        joined = table.join(
            grants, and_(grants.c.collection_id == table.c.id, grants.c.subject.in_(principal.subjects))
        )
        mine = select(grants).select_from(joined).where(table.c.state == "ready")
        for row in await connection.execute(mine):
            of_it = held.setdefault(row.collection_id, {})
            of_it[row.right] = of_it.get(row.right, frozenset()) | {row.subject}
        ready = select(table).where(table.c.state == "ready").order_by(table.c.name)
        found = [collection_record(row, held.get(row.id, {})) for row in await connection.execute(ready)]
        if any(record.kind == "milvus" for record in found):
            await self._credential_is_good(connection, principal)
        records = [await self.as_seen(principal, record) for record in found]
        return [record for record in records if self.rights.decide(principal, right, record).allowed]
