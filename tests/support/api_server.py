"""The routers in an app over the real services; only the vector store and the model are stand-ins."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import SecretStr
from sqlalchemy import and_, update

from crawler.contracts import Document
from crawler.contracts import Source as CrawlSource
from crawler.errors import UnsupportedFormat
from crawler.settings import Settings
from crawler.store import Audience, Capabilities, Hit, Metric, Query, Retrieval, Store
from plugins.api import (
    access,
    audit,
    collections,
    documents,
    health,
    jobs,
    ollama,
    people,
    pipelines,
    preview,
    reindex,
    search,
    tools,
)
from plugins.api.ollama_models import OllamaModels
from plugins.api.route import REFUSALS
from plugins.collections import tables
from plugins.collections.access import AccessService
from plugins.collections.audit import AuditLog, Refusals
from plugins.collections.catalogue import CollectionCatalogue
from plugins.collections.database import Database
from plugins.collections.documents import DocumentService
from plugins.collections.exchanges import ExchangeReader
from plugins.collections.job_service import JobService
from plugins.collections.people import People
from plugins.collections.pipelines import pipeline_list, read_pipelines
from plugins.collections.preview import Previewer
from plugins.collections.quotas import Quotas
from plugins.collections.reindex_service import ReindexService
from plugins.collections.rights import Rights
from plugins.collections.search import Searcher
from plugins.collections.storage import open_originals
from plugins.core.config import (
    AuditConfig,
    CollectionsConfig,
    Config,
    Creation,
    LimitsConfig,
    StorageConfig,
    ToolEntry,
)
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Principal
from plugins.core.identity_config import IdentityConfig
from plugins.core.identity_config import Source as IdentityEntry
from plugins.core.logs import about
from plugins.core.ports import HealthReport, Parts, Search
from plugins.core.toolbox import Toolbox
from plugins.tools.list_collections import ListCollections, ListCollectionsSettings
from plugins.tools.search_documents import SearchDocuments, SearchDocumentsSettings
from tests.support.migrated import migrated
from tests.support.services import FakeSearch

LIMITS = LimitsConfig(max_upload_bytes=200_000, max_files=3, max_wait_s=0.05)


class NoStore(Store[Settings]):
    """A vector store that keeps nothing."""

    async def capabilities(self) -> Capabilities:
        return Capabilities(version="0", hybrid=True, embedded=True)

    async def create(
        self,
        name: str,
        *,
        dimension: int,
        metric: Metric,
        retrieval: Retrieval,
        credential: SecretStr | None = None,
    ) -> None: ...

    async def drop(self, name: str, *, credential: SecretStr | None = None) -> None: ...

    async def write(self, document: Document) -> int:
        return 0

    async def remove(self, name: str, document_id: str, *, keep: str | None = None) -> None: ...

    async def search(self, name: str, query: Query, audience: Audience) -> list[Hit]:
        return []

    async def passages(
        self,
        name: str,
        document_id: str,
        revision: str,
        audience: Audience,
        *,
        pages: tuple[int, int] | None = None,
        limit: int = 1000,
    ) -> list[Hit]:
        return []

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


async def embed(model: str, texts: Sequence[str], principal: Principal) -> list[list[float]]:
    return [[0.0, 1.0] for _ in texts]


async def authenticated(request: Request) -> Principal:
    user = request.headers.get("x-user")
    if user is None:
        raise Unauthenticated
    principal = Principal(source="local", subject=user, username=user)
    about(user_id=principal.user_id)
    return principal


async def is_admin(request: Request) -> bool:
    return request.headers.get("x-user") == "root"


def check_format(source: CrawlSource) -> None:
    if source.suffix not in (".txt", ".md", ".pdf", ".html"):
        raise UnsupportedFormat("This type of file is not supported. Supported are: txt, md, pdf, html.")


class FixedHealth:
    report = HealthReport(
        store="ok", database="ok", worker="ok", identity="ok", details={"store": {"version": "3.2.1"}}
    )

    async def check(self) -> HealthReport:
        return self.report


@dataclass
class Server:
    app: FastAPI
    routers: list[APIRouter]
    spool_dir: Path
    database: Database
    health: FixedHealth
    search: FakeSearch
    """What the routes of `app` search; `searching` is an app that searches the store, which is empty."""
    searching: FastAPI
    previewer: Previewer
    preview_command: list[str]
    """Starts the child of a preview; it can be replaced in place."""
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    @cached_property
    def as_alice(self) -> httpx.AsyncClient:
        """She may create collections, and manages what she created."""
        return self.client("alice")

    def client(self, user: str | None, app: FastAPI | None = None) -> httpx.AsyncClient:
        """A client of the app for a user; None is nobody."""
        headers = {} if user is None else {"x-user": user}
        transport = httpx.ASGITransport(app or self.app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)
        self.clients.append(client)
        return client

    async def finish(self, collection: str, document: str) -> None:
        """Do as the worker does when it is done with a document."""
        table = tables.documents
        of_it = and_(table.c.collection_id == collection, table.c.id == document)
        async with self.database.write() as connection:
            await connection.execute(update(table).where(of_it).values(status="completed", stage="done"))

    def spooled(self) -> list[str]:
        return [path.name for path in self.spool_dir.iterdir()]

    async def collection(self, name: str = "handbook", **access: list[str]) -> str:
        """The id of a new collection of alice's."""
        body = {"name": name, "access": access}
        answer = await self.as_alice.post("/v1/collections/new", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def document(self, collection: str, **fields: Any) -> dict[str, Any]:
        """A new document of alice's."""
        body = {"documents": [{"markdown": "# Leave\n\n30 days.", "filename": "leave.md", **fields}]}
        answer = await self.as_alice.post(f"/v1/collections/{collection}/add", json=body)
        assert answer.status_code == 202, answer.text
        view: dict[str, Any] = answer.json()["data"][0]
        return view


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    storage = StorageConfig(data_dir=tmp_path / "data")
    database = Database(migrated(storage))
    config = Config(
        folder=tmp_path,
        identity=IdentityConfig(sources=[IdentityEntry(use="api_keys", name="local")]),
        collections=CollectionsConfig(create=[Creation(subjects=["user:alice"])]),
        audit=AuditConfig(readers=["user:auditor"]),
        pipelines={"default": {"chunker": {"use": "headings", "max_tokens": 64}}},
        limits=LIMITS,
        tools=[
            ToolEntry(use="search_documents", allow=["*"]),
            ToolEntry(use="list_collections", allow=["user:alice"]),
        ],
    )
    rights = Rights(config)
    found = FakeSearch([])
    catalogue = CollectionCatalogue(
        database,
        rights,
        NoStore(Settings()),
        embed,
        config.collections,
        {"default": None},
        lambda model: True,
    )
    service = DocumentService(database, rights, open_originals(storage), {"default": {}}, Quotas(config))
    wellness = FixedHealth()
    command = [sys.executable, "-m", "plugins.worker.preview"]
    previewer = Previewer(database, rights, service.spool_dir, command, config, timeout_s=60)
    routers = [
        *routers_of(catalogue, service, rights, database, found, wellness),
        *security_routers(database, rights, config),
        *pipeline_routers(previewer),
        reindex.router(
            ReindexService(
                database,
                rights,
                NoStore(Settings()),
                embed,
                config.collections,
                {"default": {}},
                lambda model: True,
                catalogue,
            ),
            authenticated,
        ),
    ]
    app = FastAPI()
    setattr(app.state, REFUSALS, Refusals(database))
    for routes in routers:
        app.include_router(routes)
    searching = FastAPI()
    searcher = Searcher(database, rights, NoStore(Settings()), embed, config.collections, lambda model: True)
    searching.include_router(search.router(searcher, authenticated))
    server = Server(app, routers, service.spool_dir, database, wellness, found, searching, previewer, command)
    yield server
    for client in server.clients:
        await client.aclose()
    await database.close()


def routers_of(
    catalogue: CollectionCatalogue,
    service: DocumentService,
    rights: Rights,
    database: Database,
    found: Search,
    wellness: FixedHealth,
) -> list[APIRouter]:
    parts = Parts(catalogue=catalogue, search=found)
    toolbox = Toolbox(
        {
            "search_documents": SearchDocuments(SearchDocumentsSettings(), parts),
            "list_collections": ListCollections(ListCollectionsSettings(), parts),
        },
        rights.decide_tool,
    )
    return [
        collections.router(catalogue, authenticated),
        documents.router(service, authenticated, limits=LIMITS, check_format=check_format),
        search.router(found, authenticated),
        jobs.router(JobService(database, rights, asyncio.Event()), authenticated),
        tools.router(toolbox, authenticated, timeout_s=5, max_parallel=2),
        health.router(wellness, is_admin),
    ]


def pipeline_routers(previewer: Previewer) -> list[APIRouter]:
    known = pipeline_list(read_pipelines({"default": {}}))
    return [
        pipelines.router(known, authenticated),
        preview.router(previewer, authenticated, limits=LIMITS, check_format=check_format),
    ]


def security_routers(database: Database, rights: Rights, config: Config) -> list[APIRouter]:
    known = People(database, rights, {})
    models = OllamaModels(config.ollama, rights, database)
    reader = AuditLog(database, rights)
    return [
        access.router(AccessService(database, rights, known), authenticated),
        people.router(known, authenticated),
        audit.router(reader, ExchangeReader(database, reader), authenticated),
        ollama.router(models, authenticated, pull_timeout_s=10),
    ]
