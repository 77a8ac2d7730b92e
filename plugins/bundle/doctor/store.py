"""The vector store and each collection in it, as the service's credential sees them."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from crawler.errors import CrawlError, StoreCapability, StoreError, StoreUnavailable
from crawler.store import Layout, Query, Store
from crawler.stores._connection import denied
from crawler.stores._embedded import answers, socket_path
from crawler.stores.milvus import Milvus, MilvusSettings
from plugins.bundle.doctor.findings import Notes
from plugins.bundle.doctor.storage import Rows, check_space
from plugins.collections.records import EVERYONE_KEY
from plugins.core.config import Config


async def examine_store(
    notes: Notes, store: Store[Any], config: Config, rows: Rows, models: Collection[str]
) -> None:
    """Version, rights and collections; ``models``: the names of the proxy's model_list."""
    settings = store.settings
    if isinstance(settings, MilvusSettings) and settings.embedded and not runs(notes, settings.directory):
        check_models(notes, config, rows, models)
        return
    try:
        capabilities = await store.capabilities()
    except StoreUnavailable:
        notes.fail("it cannot be reached", "Check storage.store: `uri`, and the firewall from this machine.")
        return
    except StoreError:
        notes.fail("it refuses the service's credential", "Check `user` and `password`, or `token`.")
        return
    kind = "embedded" if capabilities.embedded else "server"
    notes.ok(f"{kind}, version {capabilities.version}, answers")
    if capabilities.hybrid:
        notes.ok("new collections get `retrieval: hybrid` (BM25 and embeddings)")
    else:
        notes.warn("it has no BM25: new collections get `retrieval: dense`", "Milvus 2.5 or later has it.")
    if isinstance(store, Milvus) and not capabilities.embedded:
        await examine_service(notes, store)
    for row in rows:
        await examine_collection(notes, store, row)
    check_models(notes, config, rows, models)


def runs(notes: Notes, directory: Path) -> bool:
    """Whether another process serves the embedded store; it is not started here."""
    if not directory.is_dir():
        notes.warn("the embedded store was never started here", "The first start makes it; nothing to do.")
        return False
    found = directory.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        notes.fail(
            f"{directory} has mode {mode:o}, or belongs to another user: the store will not start",
            f"Give it to the user who runs the proxy, and run `chmod 700 {directory}`.",
        )
        return False
    if answers(socket_path(directory)):
        return True
    notes.warn(
        "the embedded store is not running: its collections were not looked at",
        "Start the proxy and ask again, to have them looked at.",
    )
    check_space(notes, directory)
    return False


async def examine_service(notes: Notes, store: Milvus) -> None:
    """What the service's credential may do, where Milvus tells."""
    settings = store.settings
    if settings.user is None and settings.token is None:
        notes.ok("no credential is configured: the server takes everyone, or this is refused below")
        return
    token = settings.token.get_secret_value() if settings.token else ""
    user = settings.user or (token.partition(":")[0] if ":" in token else None)
    if user is None:
        notes.ok("the service has an API key, of which Milvus does not tell the rights")
        return
    try:
        held = await store.privileges(SecretStr(f"{user}:"))
    except StoreCapability as error:
        notes.warn(f"the service's rights cannot be told: {error.message}", "Try an upload and a search.")
        return
    except StoreError as error:
        notes.warn(
            f"the service may not read its own rights: {error.message}",
            "`rights: milvus` needs them: let it describe users and roles.",
        )
        return
    everywhere = held.on("*")
    missing = [right for right in ("query", "add", "manage") if right not in everywhere]
    said = ", ".join(sorted(everywhere)) or "none"
    if missing or not held.create:
        notes.warn(
            f"the service's rights to all collections: {said}; it may{'' if held.create else ' not'} create",
            "It creates, drops, writes and searches: grant it these, at least on its own collections.",
        )
    else:
        notes.ok(f"the service's credential may create, and has all rights ({said})")


async def examine_collection(notes: Notes, store: Store[Any], row: Mapping[str, Any]) -> None:
    """A search that can find nothing: the physical collection is there, fits, and may be searched."""
    name, wanted = row["name"] or row["id"], int(row["dimension"])
    if row["state"] != "ready":
        notes.warn(f"collection `{name}` is {row['state']}", "Nothing, if this passes; else see the log.")
        return
    try:
        if row["adopted"] is not None:
            outline = await store.outline(row["store_name"], Layout(**row["adopted"]))
            if outline.dimension != wanted:
                notes.fail(f"collection `{name}` has vectors of {outline.dimension}, not of {wanted}", MISFIT)
                return
        else:
            query = Query(text="", vector=(1.0,) + (0.0,) * (wanted - 1), ranker="dense", limit=1)
            await store.search(row["store_name"], query, frozenset({EVERYONE_KEY}))
    except StoreUnavailable:
        notes.fail(f"collection `{name}`: the store gave no answer", "See that it is up, and try again.")
    except CrawlError as error:
        if isinstance(error, StoreError) and denied(error):
            todo = "Grant the service's user Search and Query on it."
            notes.fail(f"collection `{name}`: the service may not search it", todo)
        else:
            notes.fail(f"collection `{name}`: {error.message}", MISFIT)
    else:
        notes.ok(f"collection `{name}` is there, with vectors of {wanted}, and can be searched")


MISFIT = "Restore the store's backup, or delete the collection and upload its documents again."


def check_models(notes: Notes, config: Config, rows: Rows, models: Collection[str]) -> None:
    """That the model of each collection, and of new ones, is in the model_list."""
    if not models:
        return
    wanted = {config.collections.embedding_model: "new collections"}
    wanted |= {row["embedding_model"]: f"the collection `{row['name']}`" for row in rows if row["name"]}
    for model, of in wanted.items():
        if not any(fnmatchcase(model, name) for name in models):
            notes.fail(
                f"the embedding model `{model}` of {of} is not in model_list",
                "Add it to LiteLLM's model_list.",
            )
