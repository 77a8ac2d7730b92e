"""Search and reading: only what the caller may read, checked in the store and once more here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.errors import StoreMismatch, StoreRefused
from crawler.store import Audience, Filter, ForeignHit, Hit, Layout, Query, Ranker, Store
from crawler.stores import check_filter
from plugins.collections import tables
from plugins.collections.adoption import Adopter
from plugins.collections.database import Database
from plugins.collections.records import (
    DOCUMENT_COLUMNS,
    DOCUMENT_ID,
    LIVE_AS,
    CollectionRecord,
    Gate,
    audiences,
    document_record,
    live_as,
    now,
    there,
)
from plugins.collections.rights import Rights
from plugins.core.config import CollectionsConfig
from plugins.core.errors import InvalidRequest, ModelUnavailable, UnknownDocument
from plugins.core.identity import Principal
from plugins.core.metrics import SEARCHES, counted
from plugins.core.ports import Embed, Passage, QueryableCollection
from plugins.core.shapes import SearchRequest
from plugins.core.telemetry import stage

log = logging.getLogger(__name__)

STORE_LIMIT = 200
"""The most that one search of the store answers (`Query.limit`)."""
SPARE = 5
"""So many more hits are asked for, in place of those that are dropped."""
AT_ONCE = 8
"""Collections that one request searches at the same time."""
FRESH_S = 60.0
"""After a write, searches ask the store for strong consistency for so long."""
OWN_FIELDS = ("title", "language", "created_at")
"""What the store says of a document beside what its uploader declared."""


@dataclass(frozen=True)
class _Target:
    collection: CollectionRecord
    audience: Audience
    query: Query


class Searcher:
    """Passages that a principal may read."""

    def __init__(
        self,
        database: Database,
        rights: Rights,
        store: Store[Any],
        embed: Embed,
        config: CollectionsConfig,
        has_model: Callable[[str], bool],
        adopter: Adopter | None = None,
    ) -> None:
        self._database = database
        self._rights = rights
        self._gate = Gate(database, rights)
        self._store = store
        self._embed = embed
        self._config = config
        self._has_model = has_model
        self._adopter = adopter or Adopter(database, store, config)

    async def search(
        self, principal: Principal, collections: Sequence[str] | None, request: SearchRequest
    ) -> list[Passage]:
        """The best passages over the collections (ids or names; None = all that may be queried).

        Raises:
            UnknownCollection, Forbidden: A named collection is hidden, or may not be queried.
            InvalidRequest: The ranker is not one of a named collection's; a filter's field is unknown.
            ModelUnavailable: The embedding model of a named collection is not configured.
            StoreMismatch: A named collection that others made is not (any more) as the YAML says.
        """
        with stage("search") as span, counted(SEARCHES) as outcome:
            passages = await self._search(principal, collections, request)
            outcome.result = "found" if passages else "nothing"
            span.set_attribute("collections.passages", len(passages))
        return passages

    async def _search(
        self, principal: Principal, collections: Sequence[str] | None, request: SearchRequest
    ) -> list[Passage]:
        await self._adopter.refresh()
        with stage("rights"):
            async with self._database.read() as connection:
                found = await self._queryable(connection, principal, collections)
                admitted = await audiences(connection, principal, [record.id for record in found])
        named = collections is not None
        found = self._usable(found, request, named=named)
        with stage("embed"):
            vectors = await self._vectors(principal, found, request)
        targets = [
            _Target(record, admitted[record.id], self._query(record, request, vectors)) for record in found
        ]
        slots = asyncio.Semaphore(AT_ONCE)
        tasks = [
            asyncio.create_task(
                self._one(principal, target, request, slots)
                if target.collection.adopted is None
                else self._foreign(target, request, slots, named=named)
            )
            for target in targets
        ]
        try:
            results = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        threshold = request.ranking_options.score_threshold
        passages = [passage for result in results for passage in result if passage.score >= threshold]
        passages.sort(key=lambda passage: -passage.score)
        return passages[: request.max_num_results]

    async def read(
        self, principal: Principal, document_id: str, pages: tuple[int, int] | None = None
    ) -> list[Passage]:
        """A document's passages in their order.

        Args:
            document_id: Its id; `<collection>/<id>` where several collections have that id.
            pages: The first and the last page; None = all.

        Raises:
            UnknownDocument: There is none, or the caller may not read it.
            InvalidRequest: Several collections have a document of this id.
        """
        ref, _, plain = document_id.rpartition("/")
        if not DOCUMENT_ID.fullmatch(plain):
            raise UnknownDocument
        table = tables.documents
        async with self._database.read() as connection:
            records = {
                record.id: record for record in await self._gate.collections(connection, principal, "query")
            }
            query = select(*DOCUMENT_COLUMNS).where(table.c.id == plain, there())
            rows = [
                row
                for row in map(document_record, await connection.execute(query))
                if row.collection_id in records
                and self._rights.admits(principal, row.acl)
                and ref in ("", row.collection_id, records[row.collection_id].name)
            ]
            admitted = await audiences(connection, principal, [row.collection_id for row in rows])
        if len(rows) > 1:
            raise InvalidRequest(
                "Several collections have a document of this id; write <collection>/<id>.",
                param="document_id",
            )
        if not rows or rows[0].live_revision is None:
            raise UnknownDocument("There is no such document that you may read, or it is not ready yet.")
        [row] = rows
        record = records[row.collection_id]
        hits = await self._store.passages(
            record.store_name, row.id, row.live_revision or "", admitted[record.id], pages=pages
        )
        dressed = await self._dress(principal, record, hits)
        return [_passage(record, current, hit) for current, hit in dressed]

    def check_filter(self, filters: Filter) -> None:
        """Whether searches can use the filter.

        Raises:
            FilterError: An unknown field (named in ``param``), a wrong type, or too large a filter.
        """
        check_filter(filters, self._config.fields)

    async def queryable(
        self, principal: Principal, named: Sequence[str] | None = None
    ) -> list[QueryableCollection]:
        """Each collection that the principal may query; of the named ones, all.

        Raises:
            UnknownCollection, Forbidden: A named collection is hidden, or may not be queried.
        """
        await self._adopter.refresh()
        async with self._database.read() as connection:
            records = await self._queryable(connection, principal, named)
        return [QueryableCollection(r.id, r.name or r.id, r.description or "") for r in records]

    async def _queryable(
        self, connection: AsyncConnection, principal: Principal, named: Sequence[str] | None
    ) -> list[CollectionRecord]:
        if named is None:
            return await self._gate.collections(connection, principal, "query")
        records = [await self._gate.collection(connection, principal, ref, "query") for ref in named]
        return list({record.id: record for record in records}.values())

    def _usable(
        self, found: Sequence[CollectionRecord], request: SearchRequest, *, named: bool
    ) -> list[CollectionRecord]:
        """Those that can answer; where a collection was named that cannot, that is an error."""
        usable = []
        for record in found:
            ranker = self._ranker(record, request)
            if ranker != "dense" and record.retrieval == "dense":
                if named:
                    raise InvalidRequest(
                        f"A collection of retrieval `dense` has no ranker `{ranker}`; use `auto` or `dense`.",
                        param="ranking_options.ranker",
                    )
                log.warning("Collection %s is left out: it has no ranker %s", record.id, ranker)
            elif record.adopted is not None and request.filters is not None:
                if named:
                    raise InvalidRequest(
                        f"`{record.name}` was made outside of this service and cannot be filtered.",
                        param="filters",
                    )
                log.warning("Collection %s is left out: it cannot be filtered", record.id)
            elif ranker != "bm25" and not self._has_model(record.embedding_model):
                missing = (
                    f"The embedding model `{record.embedding_model}` of this collection is not configured; "
                    "ask the operator to add it to model_list."
                )
                if named:
                    raise ModelUnavailable(missing)
                log.warning("Collection %s is left out: %s", record.id, missing)
            else:
                usable.append(record)
        return usable

    def _ranker(self, record: CollectionRecord, request: SearchRequest) -> Ranker:
        wanted = request.ranking_options.ranker
        if wanted != "auto":
            return wanted
        return "rrf" if record.retrieval == "hybrid" else "dense"

    async def _vectors(
        self, principal: Principal, found: Sequence[CollectionRecord], request: SearchRequest
    ) -> dict[str, tuple[float, ...]]:
        """The query's embedding by each model, each computed once."""
        models = sorted({r.embedding_model for r in found if self._ranker(r, request) != "bm25"})
        answers = await asyncio.gather(*(self._embed(model, [request.query], principal) for model in models))
        return {model: tuple(vectors[0]) for model, vectors in zip(models, answers, strict=True)}

    def _query(
        self, record: CollectionRecord, request: SearchRequest, vectors: Mapping[str, tuple[float, ...]]
    ) -> Query:
        ranker = self._ranker(record, request)
        return Query(
            text=request.query,
            vector=None if ranker == "bm25" else vectors[record.embedding_model],
            ranker=ranker,
            filters=request.filters,
            fields=self._config.fields,
            fresh=now() - record.written_at < FRESH_S,
        )

    async def _one(
        self, principal: Principal, target: _Target, request: SearchRequest, slots: asyncio.Semaphore
    ) -> list[Passage]:
        """The best passages of one collection; asks again for more while too many hits were dropped."""
        wanted = request.max_num_results
        limit = min(wanted + SPARE, STORE_LIMIT)
        record = target.collection
        while True:
            query = target.query.model_copy(update={"limit": limit})
            async with slots:
                with stage("store"):
                    hits = await self._store.search(record.store_name, query, target.audience)
            dressed = await self._dress(principal, record, hits)
            if len(dressed) >= wanted or len(hits) < limit or limit == STORE_LIMIT:
                return [_passage(record, row, hit) for row, hit in dressed[:wanted]]
            limit = min(limit * 4, STORE_LIMIT)

    async def _foreign(
        self, target: _Target, request: SearchRequest, slots: asyncio.Semaphore, *, named: bool
    ) -> list[Passage]:
        """The best passages of a collection that others made: for all who may query it."""
        record, layout = target.collection, Layout.model_validate(target.collection.adopted)
        try:
            async with slots:
                with stage("store"):
                    hits = await self._store.search_foreign(
                        record.store_name, layout, target.query.vector or (), request.max_num_results
                    )
        except (StoreMismatch, StoreRefused) as error:
            log.warning("Collection %s cannot be searched: %s", record.id, error.message)
            if named:
                raise StoreMismatch from error  # its fields are not for callers to hear of
            return []
        return [_foreign_passage(record, hit) for hit in hits]

    async def _dress(
        self, principal: Principal, record: CollectionRecord, hits: Sequence[Hit]
    ) -> list[tuple[Row[Any], Hit]]:
        """Hits with their rows. A row that is gone, over its time, of another revision or not for
        them drops its hit."""
        if not hits:
            return []
        table = tables.documents
        ids = {hit.document_id for hit in hits}
        query = select(*_DRESS).where(table.c.collection_id == record.id, table.c.id.in_(ids), there())
        async with self._database.read() as connection:
            rows = {row.id: row for row in await connection.execute(query)}
        return [
            (row, hit)
            for hit in hits
            if (row := rows.get(hit.document_id)) is not None
            and row.live_revision == hit.revision
            and self._rights.admits(principal, row.acl)
        ]


_COLUMNS = ("id", "revision", "live_revision", "live_as", "title", *LIVE_AS)
_DRESS = [tables.documents.c[name] for name in _COLUMNS]


def _passage(record: CollectionRecord, row: Row[Any], hit: Hit) -> Passage:
    own = {key: hit.attributes[key] for key in OWN_FIELDS if key in hit.attributes}
    live = live_as(row)
    return Passage(
        collection_id=record.id,
        collection=record.name or "",
        document_id=row.id,
        filename=live["filename"],
        title=str(own.get("title") or row.title or live["filename"]),
        headings=hit.headings,
        page_first=hit.page_first,
        page_last=hit.page_last,
        text=hit.content,
        score=hit.score,
        attributes={**live["attributes"], **own},
    )


def _foreign_passage(record: CollectionRecord, hit: ForeignHit) -> Passage:
    source = hit.source or record.name or ""
    return Passage(
        collection_id=record.id,
        collection=record.name or "",
        document_id=hit.id,
        filename=source,
        title=hit.title or source,
        page_first=hit.page,
        page_last=hit.page,
        text=hit.content,
        score=hit.score,
        attributes=hit.attributes,
        source=source,
    )
