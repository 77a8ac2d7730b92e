"""What talks to Ollama ends with its configuration, and not before the last request that it serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

from plugins.api.ollama_models import OllamaModels
from plugins.collections.database import Database
from plugins.collections.rights import Rights
from plugins.core.config import Config, OllamaConfig, StorageConfig
from plugins.core.identity import Principal
from plugins.core.identity_config import IdentityConfig, Source
from tests.support.fake_ollama import SUCCESS, fake_ollama
from tests.support.migrated import migrated

ALICE = Principal(source="local", subject="alice", username="alice")
WAIT_S = 10.0


async def test_a_pull_goes_on_to_its_end_and_then_the_connections_are_closed(tmp_path: Path) -> None:
    database = Database(migrated(StorageConfig(data_dir=tmp_path)))
    go_on = asyncio.Event()
    async with fake_ollama() as fake, asyncio.timeout(WAIT_S):
        fake.progress = (SUCCESS[0], go_on, SUCCESS[-1])
        config = Config(
            folder=tmp_path,
            identity=IdentityConfig(sources=[Source(use="api_keys", name="local")]),
            ollama=OllamaConfig(base_url=fake.url, managers=["user:alice"]),
        )
        models = OllamaModels(config.ollama, Rights(config), database)
        pull = await models.pull(ALICE, "tiny")
        assert await anext(pull) == SUCCESS[0]
        client = models._client
        assert client is not None

        await models.close()
        assert not client.is_closed
        go_on.set()
        assert [part async for part in pull] == [SUCCESS[-1]]
        assert client.is_closed

        await models.list(ALICE)  # of a request that began with it, and asks late
        assert models._client is None
    await database.close()
