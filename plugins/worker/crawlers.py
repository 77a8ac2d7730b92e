"""The crawler for a collection: its pipeline and its embedding model."""

from __future__ import annotations

from typing import Any

from crawler.contracts import Embedder
from crawler.crawler import Crawler, Slots
from crawler.store import Store
from plugins.collections.records import CollectionRecord
from plugins.core.config import Config
from plugins.worker.models import Models


class Crawlers:
    """Makes crawlers for collections."""

    def __init__(self, config: Config, store: Store[Any], before: Crawlers | None = None) -> None:
        """``before``: those of the configuration before; what is costly to make is theirs, and the slots."""
        worker, models = config.worker, before._models if before else None
        self._models: Models = Models(config.pipelines, worker.proxy_url, worker.api_key, models)
        self._store = store
        self._slots: Slots = before._slots if before else Slots(config.worker.concurrency)

    def get(self, collection: CollectionRecord, user: str) -> Crawler:
        """The crawler for documents that `user` uploads to the collection. May load a model: blocks.

        Raises:
            NotConfigured: The operator took its pipeline or its model out of the settings.
        """
        pipeline = self._models.pipeline(collection.pipeline)
        embedder = self._embedder(collection, user)
        return Crawler(pipeline, embedder, self._store, self._models.complete(user), self._slots)

    async def close(self) -> None:
        await self._models.close()

    def _embedder(self, collection: CollectionRecord, user: str) -> Embedder:
        return self._models.embedder(collection.embedding_model, collection.dimension, user)
