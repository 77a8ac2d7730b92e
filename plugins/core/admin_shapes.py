"""The JSON of `/api/admin`: the configuration in force, and what became of a reload."""

from __future__ import annotations

from typing import Any, Literal

from plugins.core.shapes import Shape


class Setting(Shape):
    key: str
    """Its path in the YAML."""
    value: Any
    """Secrets are `********`."""
    origin: str
    """The file's name, `default`, or `environment:NAME`."""


class Configuration(Shape):
    object: Literal["configuration"] = "configuration"
    digest: str
    """Of the files that it was read from, prompts included."""
    folder: str
    values: list[Setting]


class ReloadedProcess(Shape):
    id: str
    kind: Literal["proxy", "worker"]
    host: str
    pid: int
    state: Literal["applied", "refused", "no_answer"]
    mistakes: list[str] = []
    """Why it refused."""


class Reload(Shape):
    object: Literal["reload"] = "reload"
    number: int
    processes: list[ReloadedProcess]
    not_reloaded: list[str]
    """What has changed and takes a restart."""
