"""From names in YAML to plugin classes and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from crawler import registry
from crawler.errors import ConfigError
from crawler.settings import Settings, validate
from plugins.core.identity_config import Source
from plugins.core.plugin import Plugin


class Resolved(NamedTuple):
    name: str
    """What the YAML calls it: its `name`, or the last part of `use`."""
    plugin: type[Any]
    settings: Settings


def resolve_one(package: str, contract: type[Any], entry: Plugin, where: str) -> Resolved:
    """The class of one entry and its settings.

    Raises:
        ConfigError: There is no such plugin, or its settings are wrong; each line begins with `where`.
    """
    try:
        plugin = registry.find(package, contract, entry.use)
    except ConfigError as error:
        raise ConfigError([f"{where}.use: {line}" for line in error.mistakes]) from error
    settings: Any = validate(registry.settings_type(plugin), entry.settings, where)
    own = entry.name if isinstance(entry, Source) else ""
    return Resolved(own or entry.use.rpartition(".")[2], plugin, settings)


def resolve(package: str, contract: type[Any], entries: Sequence[Plugin], where: str) -> list[Resolved]:
    """All entries of a list of plugins, whose names must differ.

    Raises:
        ConfigError: With every mistake of every entry.
    """
    found: list[Resolved] = []
    mistakes: list[str] = []
    for index, entry in enumerate(entries):
        place = f"{where}[{index}]"
        try:
            resolved = resolve_one(package, contract, entry, place)
        except ConfigError as error:
            mistakes.extend(error.mistakes)
            continue
        if any(resolved.name == other.name for other in found):
            mistakes.append(f"{place}.name: `{resolved.name}` is used twice; names must differ")
        found.append(resolved)
    if mistakes:
        raise ConfigError(mistakes)
    return found
