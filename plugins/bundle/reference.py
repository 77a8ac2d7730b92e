"""The configuration reference, `docs/configuration.md`, from the settings models themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from crawler import registry
from crawler.contracts import Chunker, Extractor, Format
from crawler.crawler import CrawlerConfig
from crawler.errors import ConfigError
from crawler.settings import Settings
from crawler.store import Store
from plugins.collections.originals import Originals
from plugins.core.config import Config
from plugins.core.ports import IdentitySource, Tool

HEAD = """# Configuration

Every YAML file in `config/` holds some of the keys below; which file holds which is up to you. The folder
is `./config`, or what `COLLECTIONS_CONFIG` names. `make check` prints all mistakes at once, each with its
file and path. A value `os.environ/NAME` is taken from the environment and must be set there;
`os.environ/NAME:-value` has a default, and with an empty default the setting is left out.
Plugins are named by `use`; `use: acme.jira` loads the module `acme.jira` of an installed package.

This page is made from the settings models by `python -m plugins reference`.
"""

PLUGINS: tuple[tuple[str, str, type[Any]], ...] = (
    ("Identity sources (`identity.sources`)", "plugins.auth", IdentitySource),
    ("Tools (`tools`)", "plugins.tools", Tool),
    ("Stores (`storage.store`)", "crawler.stores", Store),
    ("Uploaded files (`storage.originals`)", "plugins.collections.originals", Originals),
    ("Formats (`pipelines.<name>.formats`)", "crawler.formats", Format),
    ("Chunkers (`pipelines.<name>.chunker`)", "crawler.chunkers", Chunker),
    ("Extractors (`pipelines.<name>.extractor`)", "crawler.extractors", Extractor),
)
HIDDEN = {"folder", "files"}


def reference() -> str:
    """The page, as markdown."""
    parts = [HEAD]
    for key, field in Config.model_fields.items():
        if key not in HIDDEN:
            parts.append(f"## `{key}`\n\n{_doc(field)}{_section(field.annotation, key)}".rstrip() + "\n")
    parts.append(f"## A pipeline\n\n{_table(CrawlerConfig, 'pipelines.<name>')}")
    for title, package, contract in PLUGINS:
        parts.append(f"## {title}\n")
        for use in registry.available(package):
            found = _find(package, contract, use)
            if found is not None:
                settings = registry.settings_type(found)
                parts.append(f"### `use: {use}`\n\n{_summary(found)}\n\n{_table(settings, '')}")
    return "\n".join(parts).rstrip() + "\n"


def _find(package: str, contract: type[Any], use: str) -> type[Any] | None:
    """The plugin, or None for a module that is not one (a helper of the room)."""
    try:
        return registry.find(package, contract, use)
    except ConfigError:
        return None


def _section(annotation: Any, key: str) -> str:
    models = list(_models(annotation))
    return "\n".join(_table(model, key) for model in models) if models else "\n"


def _table(model: type[BaseModel], path: str) -> str:
    """One row for each setting, then the tables of the models inside."""
    if not model.model_fields:
        return "It has no settings.\n"
    rows = ["| setting | type | default | |", "|---|---|---|---|"]
    inner: list[str] = []
    for name, field in model.model_fields.items():
        place = f"{path}.{name}" if path else name
        rows.append(f"| `{name}` | {_type(field)} | {_default(field)} | {_doc(field).strip()} |")
        inner.extend(f"\n`{place}`:\n\n{_table(m, place)}" for m in _models(field.annotation))
    return "\n".join(rows) + "\n" + "".join(inner)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings models that an annotation names, in lists, unions and mappings too."""
    if inspect.isclass(annotation) and issubclass(annotation, Settings):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _type(field: FieldInfo) -> str:
    return _name(field.annotation).replace("|", "\\|")


def _name(annotation: Any) -> str:
    if annotation is SecretStr:
        return "secret"
    if annotation is type(None):
        return "nothing"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _name(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(_name(a) for a in arguments if a is not type(None))
    if origin in (list, tuple, frozenset):
        return f"list of {_name(arguments[0])}"
    if origin is dict:
        return f"mapping of {_name(arguments[1])}"
    if arguments:
        return " | ".join(f"`{a}`" for a in arguments)
    names = {str: "text", int: "number", float: "number", bool: "true | false", ByteSize: "bytes"}
    return names.get(annotation, getattr(annotation, "__name__", "any").lower())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value in (None, PydanticUndefined, "") or isinstance(value, SecretStr):
        return ""
    if isinstance(value, BaseModel):
        return f"`{value.use}`" if hasattr(value, "use") else "see below"
    if isinstance(value, list | tuple | dict):
        return f"`{_plain(value)}`" if value else ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(k) for k in value)
    return ", ".join(str(getattr(v, "use", v)) for v in value)


def _doc(field: FieldInfo) -> str:
    text = re.sub(r"\s+", " ", field.description or "").strip()
    return f"{text.replace('|', chr(92) + '|')}\n\n" if text else ""


def _summary(plugin: type[Any]) -> str:
    return (inspect.getdoc(plugin) or "").split("\n\n")[0].replace("\n", " ")
