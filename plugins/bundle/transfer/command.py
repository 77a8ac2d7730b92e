"""The commands on a terminal: with the parts of the configuration, and every failure as a text."""

from __future__ import annotations

import asyncio
import getpass
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dotenv import load_dotenv

from crawler.commands import say
from crawler.errors import CrawlError
from crawler.store import Store
from crawler.stores import LiteSupervisor
from crawler.stores.milvus import Milvus
from plugins.bundle.transfer.exporting import Parts, export
from plugins.bundle.transfer.files import Manifest, TransferError
from plugins.bundle.transfer.importing import import_collection
from plugins.collections.database import Database, database_url, migrate
from plugins.collections.records import CollectionRecord, Gate
from plugins.collections.rights import Rights
from plugins.collections.storage import open_originals, open_store
from plugins.core.config import Config, folder, load
from plugins.core.errors import BundleError
from plugins.core.identity import Principal


def run_export(ref: str, target: Path) -> int:
    """Export a collection; 0, or 1 when it failed.

    Raises:
        ConfigError: The configuration is wrong.
    """

    async def work(config: Config, parts: Parts) -> None:
        manifest = await export(parts, ref, target)
        say(f"Exported `{manifest.name}` into {target}: {_counts(manifest)}.")

    return _run(work)


def run_import(source: Path, name: str | None) -> int:
    """Import an export; 0, or 1 when it failed.

    Raises:
        ConfigError: The configuration is wrong.
    """

    async def work(config: Config, parts: Parts) -> None:
        record, manifest = await import_collection(parts, source, name)
        say(f"Imported `{record.name}` as {record.id}: {_counts(manifest)}, read back and equal.")
        for line in _notes(config, record, manifest):
            say(f"Note: {line}")

    return _run(work)


def _run(work: Callable[[Config, Parts], Awaitable[None]]) -> int:
    load_dotenv(Path(".env"))
    config = load(folder())
    migrate(database_url(config.storage))
    try:
        store = open_store(config.storage)
        with _served(store):
            asyncio.run(_with_parts(config, store, work))
    except (TransferError, OSError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        say(f"failed: {reason}", error=True)
        return 1
    except (BundleError, CrawlError) as error:
        say(f"failed: {error.message}", error=True)
        return 1
    return 0


@contextmanager
def _served(store: Store[Any]) -> Iterator[None]:
    """The embedded store's process runs meanwhile: the proxy's, or one of our own."""
    if not (isinstance(store, Milvus) and store.settings.embedded):
        yield
        return
    supervisor = LiteSupervisor(store.settings.directory)
    try:
        supervisor.start()
        yield
    finally:
        supervisor.stop()


async def _with_parts(
    config: Config, store: Store[Any], work: Callable[[Config, Parts], Awaitable[None]]
) -> None:
    database = Database(database_url(config.storage))
    originals = open_originals(config.storage)
    user = getpass.getuser()
    try:
        await work(
            config,
            Parts(
                database,
                store,
                originals,
                Gate(database, Rights(config)),
                Principal(source="command", subject=user, username=user),
            ),
        )
    finally:
        await originals.close()
        await store.close()
        await database.close()


def _counts(manifest: Manifest) -> str:
    return f"{manifest.documents} documents, {manifest.passages} passages, {manifest.files} files"


def _notes(config: Config, record: CollectionRecord, manifest: Manifest) -> Iterator[str]:
    """What is not as it was, or needs the operator."""
    if record.id != manifest.id:
        yield f"its id was {manifest.id}, which is taken here; addresses of its documents are others now"
    if record.retrieval != manifest.retrieval:
        yield "this Milvus has no keyword search (2.5 and later have): the collection is `dense` here"
    if record.pipeline not in config.pipelines:
        yield f"there is no pipeline `{record.pipeline}` here: it can be searched, and takes no documents"
    yield f"searches need the embedding model `{record.embedding_model}`; `python -m plugins doctor` tries it"
    sources = {source.name or source.use.rpartition(".")[2] for source in config.identity.sources}
    named = {found[1] for held in record.grants.values() for text in held if (found := _SUBJECT.match(text))}
    if missing := sorted(named - sources):
        yield f"it grants rights to people of {', '.join(missing)}, which is no identity source here"


_SUBJECT = re.compile(r"(?:user|group|role):([^/]+)/")
