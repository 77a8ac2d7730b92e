"""Collections: list, show, create, change, drop."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import case, func, insert, null, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.errors import StoreDenied
from crawler.store import Retrieval, Store
from plugins.collections import audit, tables
from plugins.collections.access import canonical_access, insert_grants, replace_grants, shown
from plugins.collections.adoption import Adopter
from plugins.collections.database import Database
from plugins.collections.records import CollectionRecord, Gate, has_controls, new_id, now, there
from plugins.collections.reindex_jobs import discard, progress, rebuild_of
from plugins.collections.rights import Rights
from plugins.collections.storage import choose_retrieval
from plugins.core.config import CollectionsConfig
from plugins.core.errors import Conflict, Forbidden, InvalidRequest
from plugins.core.identity import RIGHTS, Principal
from plugins.core.metrics import refused
from plugins.core.ports import Embed
from plugins.core.shapes import CollectionList, CollectionPatch, CollectionView, NewCollection, ReindexView

MAX_PAGE = 1000
MAX_NAME = 255
TURNS_TEXT = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction of text, with which a name could look like another."""
PHYSICAL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
"""Names that Milvus takes."""
MILVUS_SAYS = (
    "Who may do what with this collection is said by Milvus's roles: leave `access` out, and grant the "
    "privileges in Milvus."
)
CREATE_DENIED = "Milvus does not let you create collections: this needs the privilege `CreateCollection`."


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
        pipelines: Mapping[str, str | None],
        has_model: Callable[[str], bool],
        adopter: Adopter | None = None,
    ) -> None:
        """`pipelines`: their names, and the embedding model of each that names one."""
        self._gate = Gate(database, rights)
        self._database = database
        self._rights = rights
        self._store = store
        self._embed = embed
        self._config = config
        self._pipelines = pipelines
        self._has_model = has_model
        self._adopter = adopter or Adopter(database, store, config)

    async def list(
        self, principal: Principal, *, after: str | None = None, limit: int = 100
    ) -> CollectionList:
        """The collections that the principal may discover, by name.

        Args:
            after: The id of the last collection of the page before.
            limit: 1 to 1000.
        """
        check_limit(limit)
        await self._adopter.refresh()
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
            rebuilt = await progress(connection, page)
        views = [self._view(principal, record, counts, rebuilt, full=False) for record in page]
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
        await self._adopter.refresh()
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "discover")
            counts = await _counts(connection, [record.id])
            rebuilt = await progress(connection, [record])
        return self._view(principal, record, counts, rebuilt)

    async def create(self, principal: Principal, new: NewCollection) -> CollectionView:
        """Make a collection; its creator gets `manage`. Where rights are Milvus's it is made as the caller,
        who may then do with it what Milvus's roles say.

        Raises:
            Forbidden, StoreDenied: The principal may not create a collection of this name.
            CredentialRefused: Milvus does not accept the principal's credential.
            Conflict: The name is taken.
            InvalidRequest: The name, a subject, the model or the pipeline is none.
            StoreCapability: `hybrid` on a store that cannot do it.
        """
        name, kind = checked_name(new.name), self._config.rights
        if kind == "milvus":
            await self._check_milvus(principal, name, new)
        elif not self._rights.decide_create(principal, name).allowed:
            message = "You may not create a collection of this name: this needs the right `create`."
            raise refused("create", Forbidden(message))
        if new.pipeline not in self._pipelines:
            raise InvalidRequest(
                f"There is no such pipeline; there are: {', '.join(self._pipelines)}", param="pipeline"
            )
        usual = self._pipelines[new.pipeline] or self._config.embedding_model
        model = new.embedding_model or usual
        if not self._has_model(model):
            raise InvalidRequest(f"There is no model `{model[:100]}` on this proxy.", param="embedding_model")
        access = canonical_access(self._rights, new.access, "access.")
        if kind == "bundle":
            access["manage"] = access["manage"] | {f"user:{principal.user_id}"}
        retrieval = await choose_retrieval(self._store, new.retrieval)
        [probe] = await self._embed(model, ["dimension"], principal)
        moment = now()
        record = CollectionRecord(
            id=(identifier := new_id("vs_")),
            name=name,
            state="creating",
            kind=kind,
            description=new.description,
            metadata=dict(new.metadata),
            pipeline=new.pipeline,
            embedding_model=model,
            dimension=len(probe),
            metric=self._config.metric,
            retrieval=retrieval,
            store_name=_own_place(identifier),
            created_by=principal.user_id,
            created_at=moment,
            written_at=moment,
            grants=access,
        )
        try:
            await self._insert(record)
        except Conflict:
            if kind == "milvus":
                await self._check_taken(principal, name)
            raise
        made = await self._make(principal, record, retrieval)
        return self._view(principal, await self._gate.as_seen(principal, made), {}, {})

    async def _check_milvus(self, principal: Principal, name: str, new: NewCollection) -> None:
        """Whether a collection of this name can be made in Milvus, before it is tried as the caller."""
        if not PHYSICAL.fullmatch(name):
            raise InvalidRequest(
                "Here a collection's name is also its name in Milvus: letters of the English alphabet, "
                "digits and `_`, not beginning with a digit.",
                param="name",
            )
        if any(getattr(new.access, right) for right in RIGHTS):
            raise InvalidRequest(MILVUS_SAYS, param="access")
        if principal.store_credential is None:
            raise Forbidden(
                "To create a collection here you need a Milvus credential of your own; ask the operator how "
                "to send it."
            )
        (await self._rights.standing(principal)).check()
        if name in await self._store.names():
            await self._check_taken(principal, name)
            raise Conflict("There is already a collection of this name in Milvus.", param="name")

    async def _check_taken(self, principal: Principal, name: str) -> None:
        """That a name is taken is for those who see it, or may create collections.

        Raises:
            StoreDenied: Not for this principal.
        """
        standing = await self._rights.standing(principal)
        if name not in standing.visible and not standing.privileges.create:
            raise StoreDenied(CREATE_DENIED)

    async def _insert(self, record: CollectionRecord) -> None:
        values = {column.name: getattr(record, column.name) for column in tables.collections.columns}
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.collections).values(**values))
                await insert_grants(connection, record.id, record.grants)
        except IntegrityError as error:
            raise Conflict("There is already a collection of this name.", param="name") from error

    async def _make(
        self, principal: Principal, record: CollectionRecord, retrieval: Retrieval
    ) -> CollectionRecord:
        """The passages' place in the store; without it the row goes away again.

        Until it is there the row names a place that nobody else has: what is cleared away with a row must
        never be a collection of Milvus that others made.
        """
        ours = record.kind == "bundle"
        place = record.store_name if ours else record.name or ""
        values: dict[str, Any] = {"state": "deleting", "name": None}
        try:
            await self._store.create(
                place,
                dimension=record.dimension,
                metric=record.metric,
                retrieval=retrieval,
                credential=None if ours else principal.store_credential,
            )
            values = {"state": "ready", "store_name": place, "written_at": now()}
        except StoreDenied as error:
            raise StoreDenied(CREATE_DENIED) from error
        finally:
            table = tables.collections
            async with self._database.write() as connection:
                await connection.execute(update(table).where(table.c.id == record.id).values(**values))
                if values["state"] == "ready":
                    detail = {"name": record.name, "access": shown(record.grants).model_dump()}
                    await audit.record(
                        connection, principal, "collection.create", collection_id=record.id, detail=detail
                    )
        return replace(record, **values)

    async def change(self, principal: Principal, ref: str, patch: CollectionPatch) -> CollectionView:
        """Change what the patch names; `access` replaces all grants, and raises as `replace_grants` does."""
        await self._gate.prepare(principal)
        async with self._database.write() as connection:
            record = await self._gate.collection(connection, principal, ref, "manage")
            changed = replace(
                record,
                description=record.description if patch.description is None else patch.description,
                metadata=record.metadata if patch.metadata is None else dict(patch.metadata),
            )
            table = tables.collections
            values = {"description": changed.description, "metadata": changed.metadata}
            await connection.execute(update(table).where(table.c.id == record.id).values(**values))
            if fields := sorted(patch.model_fields_set & values.keys()):
                detail = {"fields": fields}
                await audit.record(
                    connection, principal, "collection.change", collection_id=record.id, detail=detail
                )
            if patch.access is not None:
                granted = await replace_grants(
                    connection, self._rights, principal, record, patch.access, place="access."
                )
                changed = replace(changed, grants=granted)
            counts = await _counts(connection, [record.id])
            rebuilt = await progress(connection, [changed])
        return self._view(principal, changed, counts, rebuilt)

    async def drop(self, principal: Principal, ref: str) -> str:
        """Drop the collection and all its documents; gone at once, the worker clears up behind it.

        Returns:
            Its id.
        """
        record = await self._drop_as(principal, ref)
        async with self._database.write() as connection:
            if record.kind == "bundle":  # the right may have been taken away meanwhile
                record = await self._gate.collection(connection, principal, record.id, "manage")
            table, documents = tables.collections, tables.documents
            gone: dict[str, Any] = {"state": "deleting", "name": None, "reindex": null()}
            if record.kind == "milvus":
                gone["store_name"] = _own_place(record.id)
            await connection.execute(update(table).where(table.c.id == record.id).values(**gone))
            if (rebuild := rebuild_of(record)) is not None:
                await discard(connection, rebuild.store_name)
            await connection.execute(
                update(documents).where(documents.c.collection_id == record.id).values(deleting=True)
            )
            detail = {"name": record.name}
            await audit.record(
                connection, principal, "collection.drop", collection_id=record.id, detail=detail
            )
        return record.id

    async def _drop_as(self, principal: Principal, ref: str) -> CollectionRecord:
        """The collection to be dropped. What is Milvus's to judge is dropped there now, as the principal.

        Raises:
            Conflict: Others made it.
            StoreDenied, CredentialRefused: Milvus says no.
        """
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "manage")
        if record.adopted is not None:
            raise Conflict("This collection was made outside of this service: drop it in Milvus.")
        if record.kind == "milvus":
            try:
                await self._store.drop(record.store_name, credential=principal.store_credential)
            except StoreDenied as error:
                raise StoreDenied("Milvus does not let you drop this: it needs `DropCollection`.") from error
        return record

    def _view(
        self,
        principal: Principal,
        record: CollectionRecord,
        counts: Mapping[str, _Counts],
        rebuilt: Mapping[str, ReindexView],
        *,
        full: bool = True,
    ) -> CollectionView:
        permissions = self._rights.permissions(principal, record)
        count = counts.get(record.id, _Counts())
        show = full and "manage" in permissions and record.kind == "bundle"
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
            access=shown(record.grants) if show else None,
            pipeline=record.pipeline,
            reindex=rebuilt.get(record.id) if "manage" in permissions else None,
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


def _own_place(collection_id: str) -> str:
    """The physical name that only this collection can have."""
    return f"c_{collection_id.removeprefix('vs_')}"


def check_limit(limit: int) -> None:
    """Raises InvalidRequest unless it is a page's size."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"`limit` must be 1 to {MAX_PAGE}", param="limit")


async def _counts(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, _Counts]:
    table = tables.documents
    live = case((table.c.live_revision.is_not(None), table.c.chunks), else_=0)
    query = (
        select(table.c.collection_id, func.count(), func.coalesce(func.sum(live), 0))
        .where(table.c.collection_id.in_(ids), there())
        .group_by(table.c.collection_id)
    )
    return {row[0]: _Counts(row[1], row[2]) for row in await connection.execute(query)}
