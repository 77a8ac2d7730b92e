"""One embedded store for each module, and a server too where MILVUS_URI is set (with MILVUS_USER and
MILVUS_PASSWORD, where it asks for them)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from pydantic import SecretStr

from crawler.stores import LiteSupervisor
from crawler.stores.milvus import Milvus, MilvusSettings
from tests.support.stores import DIMENSION


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteSupervisor]:
    running = LiteSupervisor(tmp_path_factory.mktemp("data") / "milvus")
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(params=["embedded", "server"] if os.environ.get("MILVUS_URI") else ["embedded"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Milvus]:
    if request.param == "server":
        password = os.environ.get("MILVUS_PASSWORD")
        settings = MilvusSettings(
            uri=os.environ["MILVUS_URI"],
            user=os.environ.get("MILVUS_USER"),
            password=SecretStr(password) if password else None,
        )
    else:
        settings = MilvusSettings(uri=str(request.getfixturevalue("supervisor").path))
    opened = Milvus(settings)
    yield opened
    await opened.close()


@pytest.fixture
async def embedded(supervisor: LiteSupervisor) -> AsyncIterator[Milvus]:
    opened = Milvus(MilvusSettings(uri=str(supervisor.path)))
    yield opened
    await opened.close()


@pytest.fixture
async def name(store: Milvus) -> AsyncIterator[str]:
    made = f"vs_{uuid4().hex}"
    hybrid = (await store.capabilities()).hybrid
    await store.create(made, dimension=DIMENSION, metric="COSINE", retrieval="hybrid" if hybrid else "dense")
    yield made
    await store.drop(made)
