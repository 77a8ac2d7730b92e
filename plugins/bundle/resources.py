"""What a process works on, whatever its configuration becomes: opened once, closed with the process."""

from __future__ import annotations

import asyncio
import atexit
import sys
from typing import Any

from crawler.store import Store
from crawler.stores import LiteSupervisor
from crawler.stores.milvus import Milvus
from crawler.supervisor import Supervisor
from plugins.collections.database import Database, database_url, migrate
from plugins.collections.storage import open_originals, open_store
from plugins.core.config import Config


class Resources:
    """The database (migrated), the store, the files, and the processes that live and die with this one.

    Raises:
        ConfigError: The database cannot be reached, or is of a newer version.
    """

    def __init__(self, config: Config) -> None:
        url = database_url(config.storage)
        migrate(url)
        self.database = Database(url)
        self.store = open_store(config.storage)
        self.originals = open_originals(config.storage)
        self.supervisors = children(config, self.store)
        self.stopping = asyncio.Event()
        """Set when this process is told to end: it finishes what it has begun."""

    def start(self) -> None:
        """Start the children; they end with this process."""
        for supervisor in self.supervisors.values():
            supervisor.start()
            atexit.register(supervisor.stop)

    def stop_worker(self) -> None:
        """End the worker, whose jobs are given back; the store answers as long as somebody asks. Blocks."""
        if worker := self.supervisors.get("worker"):
            worker.stop()


def children(config: Config, store: Store[Any]) -> dict[str, Supervisor]:
    """The processes that live and die with the proxy, by name: the embedded store, the worker."""
    found: dict[str, Supervisor] = {}
    if isinstance(store, Milvus) and store.settings.embedded:
        found["store"] = LiteSupervisor(store.settings.directory)
    if config.worker.embedded:
        command = [sys.executable, "-m", "plugins.worker", "--child"]
        found["worker"] = Supervisor(command, config.storage.data_dir / "worker.supervisor", "ingest worker")
    return found
