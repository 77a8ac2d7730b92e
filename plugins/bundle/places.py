"""Where the configuration names plugins."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from crawler import registry
from crawler.contracts import Chunker, Extractor, Format
from crawler.errors import ConfigError
from crawler.settings import Settings
from crawler.store import Store
from plugins.collections.originals import Originals
from plugins.core.ports import IdentitySource, Tool


class Place(NamedTuple):
    title: str
    key: str
    """`<name>` stands for any one."""
    package: str
    contract: type[Any]

    def plugins(self) -> dict[str, type[Any]]:
        """The built-in ones, by `use`."""
        found: dict[str, type[Any]] = {}
        for use in registry.available(self.package):
            try:
                found[use] = registry.find(self.package, self.contract, use)
            except ConfigError:
                continue  # a module that is a helper of the room
        return found

    def settings_of(self, use: str) -> type[Settings]:
        """The settings of a plugin, built in or not. Raises ConfigError where there is none."""
        return registry.settings_type(registry.find(self.package, self.contract, use))


PLACES = (
    Place("Identity sources", "identity.sources", "plugins.auth", IdentitySource),
    Place("Tools", "tools", "plugins.tools", Tool),
    Place("Stores", "storage.store", "crawler.stores", Store),
    Place("Uploaded files", "storage.originals", "plugins.collections.originals", Originals),
    Place("Formats", "pipelines.<name>.formats", "crawler.formats", Format),
    Place("Chunkers", "pipelines.<name>.chunker", "crawler.chunkers", Chunker),
    Place("Extractors", "pipelines.<name>.extractor", "crawler.extractors", Extractor),
)


def place_of(where: str) -> Place:
    """The one that a setting is in: `pipelines.default.formats[3]`."""
    key = re.sub(r"^pipelines\..+\.(?=\w+$)", "pipelines.<name>.", re.sub(r"\[\d+\]$", "", where))
    return next(place for place in PLACES if place.key == key)
