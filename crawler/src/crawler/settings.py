"""Settings as frozen Pydantic models, read from YAML, with every mistake reported at once.

A scalar may be taken from the environment: ``os.environ/NAME`` is the value of ``NAME`` and must be
set; ``os.environ/NAME:-value`` falls back to ``value`` (which may be empty: the setting is then
treated as absent). Where ``NAME_FILE`` is set instead, the value is the content of the file that it names, as
container images take their secrets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from crawler.errors import ConfigError

PREFIX = "os.environ/"
FILE_SUFFIX = "_FILE"
_ABSENT = object()


class Settings(BaseModel):
    """Base of every settings model: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


S = TypeVar("S", bound=Settings)


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as a mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError([f"{where}: is not valid YAML"]) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError([f"{path}: must be a mapping of names to settings"])
    return content


def variable(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """``NAME``, else what is in the file that ``NAME_FILE`` names, without line ends; empty without both.

    Raises:
        OSError, UnicodeDecodeError: The file cannot be read.
    """
    if value := environ.get(name):
        return value
    path = environ.get(f"{name}{FILE_SUFFIX}")
    return Path(path).read_text(encoding="utf-8").rstrip("\r\n") if path else ""


def from_environment(
    value: Any, mistakes: list[str], where: str, environ: Mapping[str, str] = os.environ
) -> Any:
    """``value`` with every ``os.environ/NAME`` replaced; what is missing is added to ``mistakes``."""
    if isinstance(value, dict):
        resolved = {k: from_environment(v, mistakes, f"{where}.{k}", environ) for k, v in value.items()}
        return {k: v for k, v in resolved.items() if v is not _ABSENT}
    if isinstance(value, list):
        items = [from_environment(v, mistakes, f"{where}[{i}]", environ) for i, v in enumerate(value)]
        return [v for v in items if v is not _ABSENT]
    if not isinstance(value, str) or not value.startswith(PREFIX):
        return value
    name, has_default, default = value.removeprefix(PREFIX).partition(":-")
    try:
        found = variable(name, environ)
    except (OSError, UnicodeDecodeError):
        mistakes.append(f"{where}: the file that {name}{FILE_SUFFIX} names cannot be read")
        return _ABSENT
    if found:
        return found
    if has_default:
        return yaml.safe_load(default) if default else _ABSENT
    mistakes.append(f"{where}: the environment variable {name} is not set")
    return _ABSENT


def validate(model: type[S], content: Mapping[str, Any], where: str) -> S:
    """``content`` as ``model``.

    Raises:
        ConfigError: One line for each mistake, each beginning with ``where`` and the setting's path.
    """
    mistakes: list[str] = []
    resolved = from_environment(dict(content), mistakes, where)
    try:
        settings = model.model_validate(resolved)
    except ValidationError as error:
        missing = {line.split(":")[0] for line in mistakes}
        for line in explain(error, where):
            if line.split(":")[0] not in missing:
                mistakes.append(line)
    if mistakes:
        raise ConfigError(mistakes)
    return settings


_IN_YAML = {
    "dict_type": "input should be a mapping",
    "extra_forbidden": "unknown setting",
    "list_type": "input should be a list",
    "model_type": "input should be a mapping",
    "tuple_type": "input should be a list",
}
"""Pydantic's types of mistakes that it tells in Python's words, in YAML's."""


def explain(error: ValidationError, where: str) -> list[str]:
    """A validation error as lines ``where.path: what is wrong``, without the offending values."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        path = where
        for part in item["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
        message = _IN_YAML.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        message = message.replace("Tuple", "List").replace(" after validation", "")
        lines.append(f"{path}: {message[0].lower()}{message[1:]}")
    return lines
