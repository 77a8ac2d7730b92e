"""The routes over the real services in this process, so that a test can take a check away.

SQL, the embedded Milvus, the worker and the keys are real; only the model is a stand-in, and there is no
LiteLLM, hence no chat.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from pydantic import SecretStr

from crawler.settings import validate
from crawler.stores.milvus import Milvus, MilvusSettings
from plugins.api import (
    access,
    admin,
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
from plugins.auth.api_keys import ApiKeys, ApiKeysSettings
from plugins.bundle.resolve import resolve
from plugins.collections.access import AccessService
from plugins.collections.audit import AuditLog
from plugins.collections.exchanges import ExchangeReader
from plugins.collections.people import People
from plugins.collections.pipelines import pipeline_list, read_pipelines
from plugins.collections.preview import Previewer
from plugins.core.admin_shapes import Configuration, Reload
from plugins.core.config import Config, LimitsConfig, OllamaConfig, StorageConfig
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.pipeline_shapes import PreviewView
from plugins.core.ports import HealthReport, IdentitySource, Parts, Tool
from plugins.core.preview_task import Answer
from plugins.core.shapes import Standing
from plugins.core.toolbox import Toolbox
from tests.support.collections import MODEL, World
from tests.support.migrated import migrated
from tests.support.proxy import MASTER_KEY, free_port
from tests.support.rights_stage import configuration as files

MASTER = Principal(
    source="litellm", subject="master", username="proxy_admin", roles=frozenset({"proxy_admin"})
)
START_S = 30.0


def configuration(folder: Path) -> Config:
    """That of the proxy of the matrix, with the stand-in model."""
    parts = {key: value for part in files().values() for key, value in part.items()}
    parts["collections"] = {**parts["collections"], "embedding_model": MODEL}
    made = validate(Config, {**parts, "folder": folder, "storage": {"data_dir": str(folder / "data")}}, "")
    return made.model_copy(update={"storage": StorageConfig(data_dir=folder / "data")})


class Keys:
    """Who is asking, by the keys of the configuration."""

    def __init__(self, config: Config) -> None:
        sources = [source for source in config.identity.sources if source.use == "api_keys"]
        self._sources: list[IdentitySource[Any]] = [
            ApiKeys(validate(ApiKeysSettings, source.settings, ""), source.name) for source in sources
        ]

    async def authenticated(self, request: Request) -> Principal:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key == MASTER_KEY:
            return MASTER
        credential = Credential(bearer=SecretStr(key), headers={}, peer="")
        for source in self._sources:
            if source.accepts(credential):
                return await source.authenticate(credential)
        raise Unauthenticated


class Well:
    async def check(self) -> HealthReport:
        return HealthReport(store="ok", database="ok", worker="ok", identity="ok", details={})


class Administration:
    """Nothing is reloaded: who may ask for it is what counts here."""

    async def reload(self, principal: Principal) -> Reload:
        return Reload(number=1, processes=[], not_reloaded=[])

    def configuration(self) -> Configuration:
        return Configuration(digest="", folder="", values=[])


def standing_of(request: Request) -> Standing:
    is_master = request.headers.get("authorization") == f"Bearer {MASTER_KEY}"
    unlimited = dict.fromkeys(Standing.model_fields.keys() - {"user_role", "spend"})
    role = MASTER.username if is_master else "internal_user"
    return Standing.model_validate({**unlimited, "user_role": role, "spend": 0.0})


async def nobody_is_admin(request: Request) -> bool:
    return False


def previewer(world: World) -> Previewer:
    """Its child says the same of every document."""
    said = PreviewView(
        filename="a.md", markdown="# A", metadata={}, warnings=[], pages=None, chunks=[], attachments=[]
    )
    code = f"print({Answer(preview=said).model_dump_json()!r})"
    command = [sys.executable, "-c", code]
    return Previewer(world.database, world.rights, world.originals.spool_dir, command, world.config)


def mount(app: FastAPI, world: World) -> None:
    """What `plugins.bundle` does."""
    who = Keys(world.config).authenticated
    parts = Parts(world.catalogue, world.searcher)
    found = resolve("plugins.tools", Tool, world.config.tools, "tools")
    toolbox = Toolbox(
        {tool.name: tool.plugin(tool.settings, parts) for tool in found}, world.rights.decide_tool
    )
    known = People(world.database, world.rights, {})
    reader = AuditLog(world.database, world.rights)
    for routes in (
        admin.router(Administration(), who, standing_of),
        access.router(AccessService(world.database, world.rights, known), who),
        people.router(known, who),
        audit.router(reader, ExchangeReader(world.database, reader), who),
        ollama.router(OllamaModels(OllamaConfig(), world.rights, world.database), who, pull_timeout_s=10),
        collections.router(world.catalogue, who),
        documents.router(world.documents, who, limits=LimitsConfig(), check_format=lambda source: None),
        pipelines.router(pipeline_list(read_pipelines(world.config.pipelines)), who),
        preview.router(previewer(world), who, limits=LimitsConfig(), check_format=lambda source: None),
        jobs.router(world.jobs, who),
        reindex.router(world.reindexing, who),
        search.router(world.searcher, who),
        tools.router(toolbox, who, timeout_s=30, max_parallel=4),
        health.router(Well(), nobody_is_admin),
    ):
        app.include_router(routes)


@contextmanager
def serve(folder: Path, lite: Path) -> Iterator[str]:
    """The address of a server in a thread of this process; ``lite`` is where the embedded Milvus listens."""
    config = configuration(folder)
    migrated(config.storage)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store = Milvus(MilvusSettings(uri=str(lite)))
        world = World(config, store)
        mount(app, world)
        async with world.working():
            yield
        await world.database.close()
        await store.close()

    port, ready = free_port(), threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready.set()

    app = FastAPI(lifespan=lifespan)
    server = Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    try:
        assert ready.wait(START_S), "the server did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(START_S)
