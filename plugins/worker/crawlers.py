"""The crawler for a collection: its pipeline from the YAML, and its embedding model."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from crawler import registry
from crawler.contracts import Embedder
from crawler.crawler import Crawler, CrawlerConfig
from crawler.embedders.openai import OpenAIEmbedder, OpenAISettings
from crawler.errors import ConfigError
from crawler.settings import validate
from crawler.store import Store
from plugins.collections.records import CollectionRecord
from plugins.core.config import Config

LOCAL = "local/"
"""Models of this prefix are computed here; any other by the proxy."""


class NotConfigured(Exception):
    """A collection cannot be written to until the operator does what the text says; public."""


class Crawlers:
    """Makes crawlers, and keeps what is costly to make: loaded models, clients, checked pipelines."""

    def __init__(self, config: Config, store: Store[Any]) -> None:
        self._config = config
        self._store = store
        self._pipelines: dict[str, CrawlerConfig] = {}
        self._local: dict[str, Embedder] = {}
        self._remote: dict[tuple[str, int], OpenAIEmbedder] = {}

    def get(self, collection: CollectionRecord, user: str) -> Crawler:
        """The crawler for documents that `user` uploads to the collection. May load a model: blocks.

        Raises:
            NotConfigured: The operator took its pipeline or its model out of the settings.
        """
        return Crawler(self._pipeline(collection.pipeline), self._embedder(collection, user), self._store)

    async def close(self) -> None:
        for embedder in self._remote.values():
            await embedder.close()

    def _pipeline(self, name: str) -> CrawlerConfig:
        if name not in self._pipelines:
            if name not in self._config.pipelines:
                raise NotConfigured(
                    f"The pipeline `{name}` of this collection is not configured any more. Ask the operator."
                )
            settings = self._config.pipelines[name]
            self._pipelines[name] = validate(CrawlerConfig, settings, f"pipelines.{name}")
        return self._pipelines[name]

    def _embedder(self, collection: CollectionRecord, user: str) -> Embedder:
        model = collection.embedding_model
        if model.startswith(LOCAL):
            name = model.removeprefix(LOCAL)
            if name not in self._local:
                self._local[name] = local_embedder(name)
            return self._local[name]
        worker = self._config.worker
        if worker.proxy_url is None or worker.api_key is None:
            raise NotConfigured(
                f"The embedding model `{model}` is reached through the proxy, and `worker.proxy_url` and "
                "`worker.api_key` are not configured. Ask the operator."
            )
        key = (model, collection.dimension)
        if key not in self._remote:
            settings = OpenAISettings(
                base_url=f"{worker.proxy_url.rstrip('/')}/v1",
                api_key=worker.api_key,
                model=model,
                dimension=collection.dimension,
            )
            self._remote[key] = OpenAIEmbedder(settings)
        return self._remote[key].for_user(user)


def local_embedder(name: str) -> Embedder:
    """The class with `embed` in ``crawler/embedders/<name>.py``, with its own defaults.

    Raises:
        NotConfigured: There is no such embedder.
    """
    package = "crawler.embedders"
    if name not in registry.available(package):
        raise NotConfigured(
            f"The embedding model `{LOCAL}{name}` is not part of this version. Ask the operator."
        )
    module = importlib.import_module(f"{package}.{name}")
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__ and hasattr(value, "embed"):
            plugin: Any = value
            embedder: Embedder = plugin()
            return embedder
    raise ConfigError([f"{package}.{name}: has no class with `embed`"])
