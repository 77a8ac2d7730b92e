"""`python -m plugins.worker`: take jobs until SIGTERM, or with `--child` until the parent is gone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from crawler import conversion
from crawler.errors import ConfigError
from crawler.store import Store
from plugins.bundle.check import check_work
from plugins.bundle.reload import Reloads, digest_of, files
from plugins.collections.database import Database, database_url, migrate
from plugins.collections.jobs import Queue
from plugins.collections.originals import Originals
from plugins.collections.processes import Processes
from plugins.collections.quotas import Quotas
from plugins.collections.storage import open_originals, open_store
from plugins.core import logs, telemetry
from plugins.core.config import Config, folder, load
from plugins.worker.crawlers import Crawlers
from plugins.worker.ingest import Ingest
from plugins.worker.metrics import shown
from plugins.worker.priority import yield_to_chats
from plugins.worker.reindex import Reindexer
from plugins.worker.tidy import Tidy
from plugins.worker.worker import Worker

log = logging.getLogger("plugins.worker")

LOCK_POLL_S = 0.5
GRACE_S = 20.0
"""How long work in progress may take to end when the parent is gone."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m plugins.worker", description=__doc__)
    parser.add_argument("--child", action="store_true", help="end when standard input closes")
    args = parser.parse_args()
    yield_to_chats(beside_proxy=args.child)
    logs.configure()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    telemetry.configure("litellm-collections-worker")
    try:
        digest = digest_of(files(folder()))
        config = load(folder())
        if mistakes := check_work(config):
            raise ConfigError(mistakes)
        migrate(database_url(config.storage))
        asyncio.run(serve(config, digest, child=args.child))
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    return 0


async def serve(config: Config, digest: str, *, child: bool) -> None:
    """Run a worker until SIGTERM or SIGINT; as a child, also until standard input closes.

    Args:
        config: As it was read.
        digest: Of its files, from before they were read.
        child: Whether it is one.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if child:
        threading.Thread(target=_watch_parent, args=(loop, stop), daemon=True).start()
    database = Database(database_url(config.storage))
    store = open_store(config.storage)
    queue = Queue(database, config.worker.lease_s, config.worker.max_attempts)
    originals = open_originals(config.storage)
    parts = Parts(config, queue, store, originals)
    reloads = Reloads(Processes(database, "worker"), config, digest, parts.take_up, check_work)
    reloads.follow_signal()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reloads.run(stop))
            async with _turn(config, stop):
                if not stop.is_set():
                    with shown(config.worker):
                        await parts.run(stop)
    finally:
        await parts.crawlers.close()
        await originals.close()
        await store.close()
        await database.close()


class Parts:
    """What does the jobs."""

    def __init__(self, config: Config, queue: Queue, store: Store[Any], originals: Originals[Any]) -> None:
        self._embedded = config.worker.embedded
        self._queue, self._store, self._originals = queue, store, originals
        self.crawlers = Crawlers(config, store)
        self._tidy = Tidy(queue, originals, store, exchanges_days=config.audit.exchanges.retention_days)
        self._worker = Worker(
            queue,
            store,
            self._ingest(config),
            self._tidy,
            concurrency=2 * config.worker.concurrency,  # some are prepared while others are embedded
        )
        self._reindexer = Reindexer(queue, originals, store, self.crawlers)

    async def take_up(self, config: Config) -> None:
        """Do the next jobs by this configuration; those in progress keep theirs."""
        self._tidy.exchanges_days = config.audit.exchanges.retention_days
        self.crawlers = Crawlers(config, self._store, self.crawlers)
        self._worker.take_up(self._ingest(config))
        self._reindexer.take_up(self.crawlers)

    async def run(self, stop: asyncio.Event) -> None:
        """Take jobs until `stop`."""
        if self._embedded and self._queue.database.sqlite:
            await self._queue.take_over()
        log.info("The worker takes jobs; conversions are confined: %s", conversion.available())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._worker.run(stop))
            tasks.create_task(self._reindexer.run(stop))

    def _ingest(self, config: Config) -> Ingest:
        return Ingest(
            self._queue,
            self._originals,
            self._store,
            self.crawlers,
            Quotas(config),
            max_bytes=config.limits.max_upload_bytes,
        )


@asynccontextmanager
async def _turn(config: Config, stop: asyncio.Event) -> AsyncIterator[None]:
    """Of embedded workers only one at a time works on a data directory; the others stand by."""
    if not config.worker.embedded:
        yield
        return
    # readable by nobody else: who can open it can lock it
    handle = os.open(_lock_file(config.storage.data_dir), os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(handle, "rb") as file:
        while not stop.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), LOCK_POLL_S)
        yield


def _lock_file(data_dir: Path) -> Path:
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return data_dir / "ingest.lock"


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending anyway
        loop.call_soon_threadsafe(stop.set)
    timer = threading.Timer(GRACE_S, os._exit, (1,))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main())
