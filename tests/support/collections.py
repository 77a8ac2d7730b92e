"""The domain on real parts (SQL, embedded Milvus, crawler, worker); only the model is a stand-in."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text

from crawler.contracts import Embedder
from crawler.errors import EmbeddingFailed
from crawler.store import Store
from crawler.stores._embedded import LiteSupervisor
from crawler.stores.milvus import Milvus, MilvusSettings
from plugins.collections import tables
from plugins.collections.catalogue import CollectionCatalogue
from plugins.collections.database import Database, database_url
from plugins.collections.documents import DocumentService, Original, Upload
from plugins.collections.job_service import JobService
from plugins.collections.jobs import Queue
from plugins.collections.quotas import Quotas
from plugins.collections.records import CollectionRecord
from plugins.collections.reindex_service import ReindexService
from plugins.collections.rights import Rights
from plugins.collections.search import Searcher
from plugins.collections.standings import Standings
from plugins.collections.storage import open_originals
from plugins.core.config import CollectionsConfig, Config, Creation, Policy, StorageConfig, ToolEntry
from plugins.core.document_shapes import DocumentView
from plugins.core.identity import Principal
from plugins.core.identity_config import IdentityConfig, Source
from plugins.core.shapes import Access, CollectionView, NewCollection, SearchRequest
from plugins.worker.crawlers import Crawlers
from plugins.worker.ingest import Ingest
from plugins.worker.reindex import Reindexer
from plugins.worker.tidy import Tidy
from plugins.worker.worker import Worker
from tests.support.migrated import migrated

DIMENSION = 16
MODEL = "local/words"
LIMIT_S = 60.0
"""No condition of these tests is waited for longer than this."""


def person(name: str, *groups: str, source: str = "kc", roles: Sequence[str] = ()) -> Principal:
    return Principal(
        source=source, subject=name, username=name, groups=frozenset(groups), roles=frozenset(roles)
    )


def words(text: str, dimension: int = DIMENSION) -> list[float]:
    """A stand-in for an embedding: words hashed into some dimensions."""
    vector = [0.01] * dimension
    for word in re.findall(r"\w+", text.lower()):
        vector[hashlib.sha256(word.encode()).digest()[0] % dimension] += 1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


@dataclass
class OtherModel:
    """A stand-in of another dimension; ingestion by it can be told to fail or to wait by itself."""

    dimension: int
    fails: int = 0
    fails_on: str | None = None
    """Texts that hold this are refused for good."""
    waits: asyncio.Event | None = None
    called: asyncio.Event = field(default_factory=asyncio.Event)
    embedded: list[str] = field(default_factory=list)
    users: set[str] = field(default_factory=set)
    """Whom the embeddings of ingestion were for."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.called.set()
        if self.fails:
            self.fails -= 1
            raise EmbeddingFailed
        if self.fails_on is not None and any(self.fails_on in given for given in texts):
            error = EmbeddingFailed("The embedding model refused.")
            error.transient = False
            raise error
        if self.waits is not None:
            await asyncio.wait_for(self.waits.wait(), LIMIT_S)
        self.embedded += texts
        return [words(given, self.dimension) for given in texts]


@dataclass
class Model:
    """The stand-in model, for queries and for ingestion; it can be told to fail or to wait."""

    dimension: int = DIMENSION
    fails: int = 0
    """So many of the next calls of the ingestion fail."""
    waits: asyncio.Event | None = None
    """The ingestion waits for this event."""
    called: asyncio.Event = field(default_factory=asyncio.Event)
    names: set[str] = field(default_factory=lambda: {MODEL})
    others: dict[str, OtherModel] = field(default_factory=dict)
    """More models, by their names."""
    queries: list[str] = field(default_factory=list)

    async def __call__(self, model: str, texts: Sequence[str], principal: Principal) -> list[list[float]]:
        self.queries.append(model)
        other = self.others.get(model)
        return [words(given, other.dimension if other else self.dimension) for given in texts]

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.called.set()
        if self.fails:
            self.fails -= 1
            raise EmbeddingFailed
        if self.waits is not None:
            await asyncio.wait_for(self.waits.wait(), LIMIT_S)
        return [words(given, self.dimension) for given in texts]


class ModelCrawlers(Crawlers):
    """Crawlers of the default pipeline with the stand-in model."""

    def __init__(self, config: Config, store: Store[Any], model: Model) -> None:
        super().__init__(config, store)
        self._model = model

    def _embedder(self, collection: CollectionRecord, user: str) -> Embedder:
        other = self._model.others.get(collection.embedding_model)
        if other is not None:
            other.users.add(user)
        return other or self._model


def a_config(folder: Path, **collections: Any) -> Config:
    url = os.environ.get("TEST_DATABASE_URL")
    defaults: dict[str, Any] = {
        "create": [Creation(subjects=["user:kc/alice"])],
        "embedding_model": MODEL,
        "fields": {"year": "number", "department": "string"},
    }
    return Config(
        folder=folder,
        identity=IdentityConfig(sources=[Source(use="oidc", name="kc"), Source(use="oidc", name="other")]),
        collections=CollectionsConfig(**{**defaults, **collections}),
        storage=StorageConfig(data_dir=folder / "data", database=SecretStr(url) if url else None),
        tools=[ToolEntry(use="search_documents", allow=["group:kc/staff"])],
    )


class World:
    """One installation, and people who use it."""

    def __init__(self, config: Config, store: Store[Any]) -> None:
        self.config = config
        self.store = store
        self.model = Model()
        self.database = Database(database_url(config.storage))
        self.rights = Rights(config, Standings(store, config.collections.privileges_cache_s))
        self.originals = open_originals(config.storage)
        self.queue = Queue(self.database, lease_s=30.0, max_attempts=3, backoff_s=0.001)
        has_model: Callable[[str], bool] = lambda name: name in self.model.names  # noqa: E731
        self.catalogue = CollectionCatalogue(
            self.database, self.rights, store, self.model, config.collections, {"default": None}, has_model
        )
        self.quotas = Quotas(config)
        self.documents = DocumentService(
            self.database, self.rights, self.originals, config.pipelines, self.quotas
        )
        self.jobs = JobService(self.database, self.rights, asyncio.Event())
        self.searcher = Searcher(self.database, self.rights, store, self.model, config.collections, has_model)
        self.reindexing = ReindexService(
            self.database,
            self.rights,
            store,
            self.model,
            config.collections,
            config.pipelines,
            has_model,
            self.catalogue,
        )
        self.concurrency = 1
        self.alice = person("alice", "staff")

    def worker(self) -> Worker:
        crawlers = ModelCrawlers(self.config, self.store, self.model)
        ingest = Ingest(self.queue, self.originals, self.store, crawlers, self.quotas, max_bytes=10**6)
        return Worker(
            self.queue,
            self.store,
            ingest,
            Tidy(self.queue, self.originals, self.store, exchanges_days=30),
            concurrency=self.concurrency,
        )

    def reindexer(self) -> Reindexer:
        crawlers = ModelCrawlers(self.config, self.store, self.model)
        return Reindexer(self.queue, self.originals, self.store, crawlers, backoff_s=0.001)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[asyncio.Event]:
        """A worker runs meanwhile; set the event to stop it earlier."""
        stop = asyncio.Event()
        running = asyncio.gather(self.worker().run(stop), self.reindexer().run(stop))
        try:
            yield stop
        finally:
            stop.set()
            await asyncio.wait_for(running, LIMIT_S)

    async def content(self, principal: Principal, ref: str, document_id: str) -> Original:
        """What is served as the document's file; in a folder it stays where it is."""
        async with self.documents.content(principal, ref, document_id) as original:
            return original

    async def work(self) -> None:
        """Let a worker do everything that is to be done."""
        async with self.working():
            await self.until(self.idle)

    async def idle(self) -> bool:
        table = tables.documents
        async with self.database.read() as connection:
            pending = (await connection.execute(select(table.c.id).where(table.c.pending))).all()
        return not pending and not await self.queue.dropped()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not await condition():  # noqa: ASYNC110 - it looks into a database
                await asyncio.sleep(0.03)

    async def collection(self, name: str = "handbook", **access: list[str]) -> CollectionView:
        """A new collection of alice's."""
        return await self.catalogue.create(self.alice, NewCollection(name=name, access=Access(**access)))

    async def add(self, ref: str, text: str, *, by: Principal | None = None, **fields: Any) -> DocumentView:
        """A Markdown document, not yet processed."""
        [added] = await self.documents.add(by or self.alice, ref, [an_upload(text, **fields)])
        return added

    async def row(self, document: DocumentView) -> Any:
        table = tables.documents
        query = select(table).where(
            table.c.collection_id == document.collection_id, table.c.id == document.id
        )
        async with self.database.read() as connection:
            return (await connection.execute(query)).one_or_none()

    async def found(
        self, principal: Principal, query: str, ref: str | None = None, **options: Any
    ) -> list[str]:
        """The texts that a search finds."""
        request = SearchRequest(query=query, **options)
        passages = await self.searcher.search(principal, [ref] if ref else None, request)
        return [passage.text for passage in passages]

    async def stored(self, document: DocumentView) -> int:
        """How many passages of all revisions the store has, whoever may read them."""
        table = tables.collections
        place = select(table.c.store_name).where(table.c.id == document.collection_id)
        async with self.database.read() as connection:
            name = str(await connection.scalar(place))
        return await self.store.count(name, document.id)


def an_upload(text: str, **fields: Any) -> Upload:
    values: dict[str, Any] = {
        "filename": "a.md",
        "media_type": "text/markdown",
        "path": None,
        "size": len(text.encode()),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "markdown": text,
        "url": None,
        "metadata": {},
        "acl": None,
        "document_id": None,
    }
    return Upload(**{**values, **fields})


async def make_tables(config: Config) -> None:
    """SQLite in the test's folder, or the Postgres of `TEST_DATABASE_URL`, which is emptied."""
    url = database_url(config.storage)
    if not url.startswith("sqlite"):
        database = Database(url)
        async with database.write() as connection:
            await connection.execute(text("DROP SCHEMA public CASCADE"))
            await connection.execute(text("CREATE SCHEMA public"))
        await database.close()
    migrated(config.storage)


@pytest.fixture(scope="session")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteSupervisor]:
    """The embedded Milvus in its own process, one for all tests of this run."""
    supervisor = LiteSupervisor(tmp_path_factory.mktemp("lite") / "store")
    try:
        supervisor.start()
        yield supervisor
    finally:
        supervisor.stop()


@pytest.fixture
async def store(lite: LiteSupervisor) -> AsyncIterator[Milvus]:
    milvus = Milvus(MilvusSettings(uri=str(lite.path)))
    yield milvus
    await milvus.close()


@pytest.fixture
async def world(tmp_path: Path, store: Milvus) -> AsyncIterator[World]:
    """Alice may create collections; by policy everybody queries `open-*`, and nobody anything else."""
    config = a_config(tmp_path, policy=[Policy(names="open-*", discover=["*"], query=["*"])])
    await make_tables(config)
    made = World(config, store)
    yield made
    await made.database.close()
