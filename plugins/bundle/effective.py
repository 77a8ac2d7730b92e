"""The configuration as it is in force: every setting, its value without secrets, and where that is from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr
from pydantic_core import to_jsonable_python

from crawler.crawler import CrawlerConfig, PluginConfig
from crawler.errors import ConfigError
from crawler.settings import FILE_SUFFIX, PREFIX, Settings, read_yaml, validate
from plugins.bundle.places import place_of
from plugins.collections.storage import open_store
from plugins.core.config import Config
from plugins.core.plugin import Plugin

MASK = "********"
DEFAULT = "default"
OWN = {"folder", "files"}
"""Fields of the configuration that are no settings."""
_SECRET = re.compile(r"(key|token|secret|passw(or)?d|authorization|credentials?)s?$", re.IGNORECASE)
"""Settings that hide their value although an outside plugin did not declare them a `SecretStr`."""
_IN_ADDRESS = re.compile(r"(?<=://)\S*@")
"""A password may have any character in it, where whoever wrote it forgot to encode it."""
_IN_QUERY = re.compile(r"(?<=[?&])([^=&\s]*(?:key|token|secret|password)=)[^&\s]+", re.IGNORECASE)
_ABSENT = object()


class Value(NamedTuple):
    key: str
    """Its path: `chat.profiles.default.max_num_results`, `identity.sources[0].issuer`."""
    value: Any
    """JSON; a secret is `MASK`."""
    origin: str
    """The file's name, `default`, or `environment:NAME`."""


def effective(config: Config) -> list[Value]:
    """Every setting of a configuration without mistakes. Blocks: the files are read for where values are
    from."""
    found: list[Value] = []
    for key in (key for key in Config.model_fields if key not in OWN):
        file = config.files.get(key)
        written = _written(file).get(key, _ABSENT) if file else _ABSENT
        origins = _Origins(file.name if file else DEFAULT, config)
        if key == "pipelines":
            for name, settings in config.pipelines.items():
                pipeline = validate(CrawlerConfig, settings, f"pipelines.{name}")
                found += origins.walk(pipeline, _part(written, name), f"pipelines.{name}")
        else:
            found += origins.walk(getattr(config, key), written, key)
    return found


class _Origins:
    """Of the settings of one key."""

    def __init__(self, file: str, config: Config) -> None:
        self._file = file
        self._config = config

    def walk(
        self, value: Any, written: Any, where: str, *, plugin: bool = False, hidden: bool = False
    ) -> Iterator[Value]:
        """The settings within ``value``, which came from what is ``written``.

        Args:
            plugin: Whether it is a plugin's, which may not have said what is secret: then its name does.
            hidden: Whether it is in a mapping whose name says so.
        """
        hidden = hidden or (plugin and bool(_SECRET.search(re.sub(r".*\.|\[\d+\]", "", where))))
        if isinstance(value, Plugin | PluginConfig):
            own = {name: getattr(value, name) for name in type(value).model_fields}
            yield from self._fields(own, written, where, plugin=False)
            yield from self.walk(self._own_settings(value, where), written, where, plugin=True)
        elif isinstance(value, BaseModel):
            fields = {name: getattr(value, name) for name in type(value).model_fields}
            yield from self._fields(fields, written, where, plugin=plugin)
        elif isinstance(value, Mapping) and value:
            yield from self._fields(value, written, where, plugin=plugin, hidden=hidden)
        elif isinstance(value, list | tuple) and any(isinstance(item, BaseModel | Mapping) for item in value):
            same = isinstance(written, list) and len(written) == len(value)  # else some are left out
            for index, item in enumerate(value):
                part = written[index] if same else written
                yield from self.walk(item, part, f"{where}[{index}]", plugin=plugin, hidden=hidden)
        else:
            masked = hidden and isinstance(value, str | list | tuple) and value
            yield Value(where, MASK if masked else _shown(value), self._origin(written))

    def _fields(
        self, fields: Mapping[str, Any], written: Any, where: str, *, plugin: bool, hidden: bool = False
    ) -> Iterator[Value]:
        for name, value in fields.items():
            at = f"{where}.{name}"
            yield from self.walk(value, _part(written, name), at, plugin=plugin, hidden=hidden)

    def _own_settings(self, entry: Plugin | PluginConfig, where: str) -> Settings:
        if where == "storage.store":  # its place has a default that depends on the others
            settings: Settings = open_store(self._config.storage).settings
            return settings
        return validate(place_of(where).settings_of(entry.use), entry.settings, where)

    def _origin(self, written: Any) -> str:
        if written is _ABSENT:
            return DEFAULT
        asked = ((name, f"{name}{FILE_SUFFIX}") for name in _names(written))
        names = [name for both in asked for name in both if os.environ.get(name)]
        if isinstance(written, str) and written.startswith(PREFIX) and not names:
            return self._file if written.partition(":-")[2] else DEFAULT
        return ", ".join(f"environment:{name}" for name in names) or self._file


def _names(written: Any) -> Iterator[str]:
    """The environment variables that are named within."""
    if isinstance(written, str) and written.startswith(PREFIX):
        yield written.removeprefix(PREFIX).partition(":-")[0]
    elif isinstance(written, list):
        for part in written:
            yield from _names(part)


def _part(written: Any, name: str) -> Any:
    return written.get(name, _ABSENT) if isinstance(written, dict) else _ABSENT


def _written(file: Path) -> dict[str, Any]:
    try:
        return read_yaml(file)
    except ConfigError:  # it was changed since it was read
        return {}


def _shown(value: Any) -> Any:
    """As JSON, without secrets."""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(item) for item in value]
    if isinstance(value, str):
        return _IN_QUERY.sub(rf"\1{MASK}", _IN_ADDRESS.sub(f"{MASK}@", value))
    return to_jsonable_python(value, fallback=str)
