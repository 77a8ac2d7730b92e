"""Collections: list, show, create, change, drop."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.contracts import Retrieval, Store
from crawler.errors import StoreCapability
from plugins.collections import tables
from plugins.collections.database import Database
from plugins.collections.records import CollectionRecord, Gate, has_controls, new_id, now
from plugins.collections.rights import Grants, Rights
from plugins.core.config import CollectionsConfig
from plugins.core.errors import Conflict, Forbidden, InvalidRequest
from plugins.core.identity import RIGHTS, Principal, Right
from plugins.core.ports import Embed
from plugins.core.shapes import Access, CollectionList, CollectionPatch, CollectionView, NewCollection

MAX_PAGE = 1000
MAX_NAME = 255
TURNS_TEXT = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction of text, with which a name could look like another."""


@dataclass(frozen=True)
class _Counts:
    documents: int = 0
    chunks: int = 0


class CollectionCatalogue:
    """The collections as a principal may see and change them. Every method checks the right it needs."""

    def __init__(
        self,
        database: Database,
        rights: Rights,
        store: Store[Any],
        embed: Embed,
        config: CollectionsConfig,
        pipelines: Sequence[str],
        has_model: Callable[[str], bool],
    ) -> None:
        self._gate = Gate(database, rights)
        self._database = database
        self._rights = rights
        self._store = store
        self._embed = embed
        self._config = config
        self._pipelines = pipelines
        self._has_model = has_model

    async def list(
        self, principal: Principal, *, after: str | None = None, limit: int = 100
    ) -> CollectionList:
        """The collections that the principal may discover, by name.

        Args:
            after: The id of the last collection of the page before.
            limit: 1 to 1000.
        """
        check_limit(limit)
        async with self._database.read() as connection:
            found = await self._gate.collections(connection, principal, "discover")
            ids = [record.id for record in found]
            if after is not None and after not in ids:
                raise InvalidRequest(
                    "`after` must be the id of a collection that you may discover", param="after"
                )
            start = ids.index(after) + 1 if after is not None else 0
            page = found[start : start + limit]
            counts = await _counts(connection, [record.id for record in page])
        views = [self._view(principal, record, counts, full=False) for record in page]
        return CollectionList(data=views, has_more=len(found) > start + limit)

    async def missing_models(self) -> Sequence[str]:
        """The embedding models of collections that this proxy does not have (any more)."""
        table = tables.collections
        async with self._database.read() as connection:
            names = await connection.scalars(
                select(table.c.embedding_model).where(table.c.state == "ready").distinct()
            )
            return sorted(name for name in names if not self._has_model(name))

    async def get(self, principal: Principal, ref: str) -> CollectionView:
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "discover")
            counts = await _counts(connection, [record.id])
        return self._view(principal, record, counts)

    async def create(self, principal: Principal, new: NewCollection) -> CollectionView:
        """Make a collection; its creator gets `manage`.

        Raises:
            Forbidden: The principal may not create a collection of this name.
            Conflict: The name is taken.
            InvalidRequest: The name, a subject, the model or the pipeline is none.
            StoreCapability: `hybrid` on a store that cannot do it.
        """
        name = checked_name(new.name)
        decision = self._rights.decide_create(principal, name)
        if not decision.allowed:
            raise Forbidden("You may not create a collection of this name: this needs the right `create`.")
        model = new.embedding_model or self._config.embedding_model
        if not self._has_model(model):
            raise InvalidRequest(f"There is no model `{model[:100]}` on this proxy.", param="embedding_model")
        if new.pipeline not in self._pipelines:
            raise InvalidRequest(
                f"There is no such pipeline; there are: {', '.join(self._pipelines)}", param="pipeline"
            )
        access = self._canonical(new.access)
        access["manage"] = access["manage"] | {f"user:{principal.user_id}"}
        retrieval = await self._retrieval(new.retrieval)
        [probe] = await self._embed(model, ["dimension"], principal)
        moment = now()
        record = CollectionRecord(
            id=(identifier := new_id("vs_")),
            name=name,
            state="creating",
            kind="bundle",
            description=new.description,
            metadata=dict(new.metadata),
            pipeline=new.pipeline,
            embedding_model=model,
            dimension=len(probe),
            metric=self._config.metric,
            retrieval=retrieval,
            store_name=f"c_{identifier.removeprefix('vs_')}",
            created_by=principal.user_id,
            created_at=moment,
            written_at=moment,
            grants=access,
        )
        await self._insert(record)
        await self._make(record, retrieval)
        return self._view(principal, record, {})

    async def _insert(self, record: CollectionRecord) -> None:
        values = {column.name: getattr(record, column.name) for column in tables.collections.columns}
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.collections).values(**values))
                await _set_grants(connection, record.id, record.grants)
        except IntegrityError as error:
            raise Conflict("There is already a collection of this name.", param="name") from error

    async def _make(self, record: CollectionRecord, retrieval: Retrieval) -> None:
        """The passages' place in the store; without it the row goes away again."""
        state = "deleting"
        try:
            await self._store.create(
                record.store_name, dimension=record.dimension, metric=record.metric, retrieval=retrieval
            )
            state = "ready"
        finally:
            table = tables.collections
            values: dict[str, Any] = {"state": state} if state == "ready" else {"state": state, "name": None}
            async with self._database.write() as connection:
                await connection.execute(update(table).where(table.c.id == record.id).values(**values))

    async def _retrieval(self, wanted: str) -> Retrieval:
        if wanted == "dense":
            return "dense"
        hybrid = (await self._store.capabilities()).hybrid
        if wanted == "hybrid" and not hybrid:
            raise StoreCapability(
                "This vector store cannot do hybrid retrieval; use `dense` or `auto`.", param="retrieval"
            )
        return "hybrid" if hybrid else "dense"

    async def change(self, principal: Principal, ref: str, patch: CollectionPatch) -> CollectionView:
        """Change what the patch names; `access` replaces all grants.

        Raises:
            Conflict: Nobody would be left who may manage it.
        """
        async with self._database.write() as connection:
            record = await self._gate.collection(connection, principal, ref, "manage")
            changed = replace(
                record,
                description=record.description if patch.description is None else patch.description,
                metadata=record.metadata if patch.metadata is None else dict(patch.metadata),
            )
            table, grants = tables.collections, tables.grants
            values = {"description": changed.description, "metadata": changed.metadata}
            await connection.execute(update(table).where(table.c.id == record.id).values(**values))
            if patch.access is not None:
                access = self._canonical(patch.access)
                access["manage"] = access["manage"] or _creators(record)
                await connection.execute(delete(grants).where(grants.c.collection_id == record.id))
                await _set_grants(connection, record.id, access)
                changed = replace(changed, grants=access)
            counts = await _counts(connection, [record.id])
        return self._view(principal, changed, counts)

    async def drop(self, principal: Principal, ref: str) -> str:
        """Drop the collection and all its documents; gone at once, the worker clears up behind it.

        Returns:
            Its id.
        """
        async with self._database.write() as connection:
            record = await self._gate.collection(connection, principal, ref, "manage")
            table, documents = tables.collections, tables.documents
            gone = update(table).where(table.c.id == record.id).values(state="deleting", name=None)
            await connection.execute(gone)
            await connection.execute(
                update(documents).where(documents.c.collection_id == record.id).values(deleting=True)
            )
        return record.id

    def _canonical(self, access: Access) -> dict[Right, frozenset[str]]:
        return {
            right: frozenset(self._rights.canonical(getattr(access, right), f"access.{right}"))
            for right in RIGHTS
        }

    def _view(
        self,
        principal: Principal,
        record: CollectionRecord,
        counts: Mapping[str, _Counts],
        *,
        full: bool = True,
    ) -> CollectionView:
        permissions = self._rights.permissions(principal, record)
        count = counts.get(record.id, _Counts())
        show = full and "manage" in permissions
        access = {right: sorted(record.grants.get(right, ())) for right in RIGHTS}
        return CollectionView(
            id=record.id,
            name=record.name or "",
            description=record.description,
            metadata=record.metadata,
            embedding_model=record.embedding_model,
            dimension=record.dimension,
            retrieval=record.retrieval,
            documents=count.documents,
            chunks=count.chunks,
            created_at=int(record.created_at),
            permissions=permissions,
            access=Access.model_validate(access) if show else None,
        )


def checked_name(text: str) -> str:
    """A collection's name: stripped, NFC, 1 to 255 characters, none a control, not like an id.

    Raises:
        InvalidRequest: It is not one.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= MAX_NAME:
        raise InvalidRequest(f"A collection's name has 1 to {MAX_NAME} characters.", param="name")
    if has_controls(text) or TURNS_TEXT.search(text):
        raise InvalidRequest("A collection's name has no control characters.", param="name")
    if name.startswith("vs_"):
        raise InvalidRequest("A collection's name may not begin like an id (`vs_`).", param="name")
    return name


def check_limit(limit: int) -> None:
    """Raises InvalidRequest unless it is a page's size."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"`limit` must be 1 to {MAX_PAGE}", param="limit")


def _creators(record: CollectionRecord) -> frozenset[str]:
    creator = f"user:{record.created_by}"
    if creator in record.grants.get("manage", ()):
        return frozenset({creator})
    raise Conflict("Somebody must be left who may manage the collection.", param="access.manage")


async def _set_grants(connection: AsyncConnection, collection_id: str, access: Grants) -> None:
    rows = [
        {"collection_id": collection_id, "right": right, "subject": subject}
        for right, subjects in access.items()
        for subject in sorted(subjects)
    ]
    if rows:
        await connection.execute(insert(tables.grants), rows)


async def _counts(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, _Counts]:
    table = tables.documents
    live = case((table.c.live_revision.is_not(None), table.c.chunks), else_=0)
    query = (
        select(table.c.collection_id, func.count(), func.coalesce(func.sum(live), 0))
        .where(and_(table.c.collection_id.in_(ids), table.c.deleting.is_(False)))
        .group_by(table.c.collection_id)
    )
    return {row[0]: _Counts(row[1], row[2]) for row in await connection.execute(query)}
