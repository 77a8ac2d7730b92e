"""The vector store and the storage of files that the settings name."""

from __future__ import annotations

from typing import Any

from crawler import registry
from crawler.errors import ConfigError, StoreCapability
from crawler.settings import Settings, validate
from crawler.store import Retrieval, Store
from plugins.collections.originals import Originals
from plugins.core.config import Config, StorageConfig

STORE_FOLDER = "store"
"""Under the data directory: where the embedded store lives."""


def open_store(storage: StorageConfig) -> Store[Any]:
    """The store; it connects at its first use. Without a `uri` it is the embedded one.

    Raises:
        ConfigError: There is no such plugin, or its settings are wrong.
    """
    use = storage.store.use
    try:
        plugin = registry.find("crawler.stores", Store, use)  # type: ignore[type-abstract]
    except ConfigError as error:
        raise ConfigError([f"storage.store.use: {line}" for line in error.mistakes]) from error
    model = registry.settings_type(plugin)
    settings = storage.store.settings
    if "uri" in model.model_fields:
        settings = {"uri": str(storage.data_dir.absolute() / STORE_FOLDER), **settings}
    return plugin(validate(model, settings, "storage.store"))


def check_store(config: Config) -> None:
    """Whether there is the store, and it can do what `collections.rights` and `collections.adopt` say.

    Raises:
        ConfigError: As `open_store`; or it has no users and no collections of others: it is the embedded one.
    """
    if open_store(config.storage).has_rights:
        return
    needed = "needs a Milvus server: set `storage.store.uri`; the embedded store has no users of its own"
    entries = enumerate(config.collections.adopt)
    mistakes = [f"collections.adopt[{number}]: {needed}" for number, _ in entries]
    if config.collections.rights == "milvus":
        mistakes.insert(0, f"collections.rights: `milvus` {needed}")
    if mistakes:
        raise ConfigError(mistakes)


def open_originals(storage: StorageConfig) -> Originals[Any]:
    """Where files are kept; it connects at its first use.

    Raises:
        ConfigError: There is no such plugin, or its settings are wrong.
    """
    plugin, settings = find_originals(storage)
    return plugin(settings, storage.data_dir)


def find_originals(storage: StorageConfig) -> tuple[type[Originals[Any]], Settings]:
    """The plugin that `storage.originals` names, with its settings; nothing is made.

    Raises:
        ConfigError: As `open_originals`.
    """
    named = storage.originals
    try:
        plugin = registry.find("plugins.collections.originals", Originals, named.use)  # type: ignore[type-abstract]
    except ConfigError as error:
        raise ConfigError([f"storage.originals.use: {line}" for line in error.mistakes]) from error
    return plugin, validate(registry.settings_type(plugin), named.settings, "storage.originals")


async def choose_retrieval(store: Store[Any], wanted: str) -> Retrieval:
    """What `auto` is here.

    Raises:
        StoreCapability: `hybrid` on a store that cannot do it.
    """
    if wanted == "dense":
        return "dense"
    hybrid = (await store.capabilities()).hybrid
    if wanted == "hybrid" and not hybrid:
        raise StoreCapability(
            "This vector store cannot do hybrid retrieval; use `dense` or `auto`.", param="retrieval"
        )
    return "hybrid" if hybrid else "dense"
