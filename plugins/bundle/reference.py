"""The configuration reference, `docs/configuration.md`, from the settings models themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from crawler.crawler import CrawlerConfig
from crawler.settings import PREFIX, Settings, read_yaml
from plugins.bundle.effective import OWN
from plugins.bundle.places import PLACES
from plugins.core.config import FOLDER_VARIABLE, Config

CONFIG = Path(__file__).parents[2] / "config"
HEAD = """# Configuration

Every YAML file in `config/` holds some of the keys below; which file holds which is up to you. The folder
is `./config`, or what `COLLECTIONS_CONFIG` names. `make check` prints all mistakes at once, each with its
file and path. A value `os.environ/NAME` is taken from the environment and must be set there;
`os.environ/NAME:-value` has a default, and with an empty default the setting is left out.
Editors complete and check these files by `config/schema.json`. Most settings are [reloaded](reload.md)
without a restart.
Plugins are named by `use`; `use: acme.jira` loads the module `acme.jira` of an installed package.

This page is made from the settings models by `python -m plugins reference`.
"""

ENVIRONMENT = """## Environment

The files in `config/` of this repository name these variables, whose settings are theirs; in your own files
any setting may name any variable. Instead of `NAME`, `NAME_FILE` may name a file that holds the value.

| variable | setting | without it |
|---|---|---|
"""
OF_THE_PROCESS = {
    FOLDER_VARIABLE: ("the folder of the configuration", "`config`"),
    "JSON_LOGS": ("`true`: each line of the log is a JSON object", "lines of text"),
    "LITELLM_MASTER_KEY": (
        "LiteLLM's, and the admin of the source `litellm`",
        "`general_settings.master_key`",
    ),
    "MINILM_PATH": ("the folder of the model `local/minilm`", "the one of this installation"),
    "TESSDATA_PREFIX": ("the folder of Tesseract's languages ([formats](formats.md))", "the system's"),
    "XDG_CACHE_HOME": ("where what is unpacked once is kept", "`~/.cache`"),
    "OTEL_...": ("where traces go ([tracing](tracing.md))", "nowhere"),
    "PROMETHEUS_METRICS_PORT": (
        "LiteLLM's port for figures ([monitoring](monitoring.md))",
        "`/metrics` of the proxy",
    ),
    "PROMETHEUS_MULTIPROC_DIR": (
        "where several processes put figures ([monitoring](monitoring.md))",
        "one in `TMPDIR`",
    ),
    "FORWARDED_ALLOW_IPS": (
        "Uvicorn's: whose `X-Forwarded-For` counts ([deployment](deployment.md))",
        "`127.0.0.1`",
    ),
    "KEEPALIVE_TIMEOUT": (
        "LiteLLM's: seconds that idle connections stay open ([many](many.md))",
        "`5`; the image: `75`",
    ),
}
UNITS = {"_s": "seconds", "_bytes": "bytes", "_days": "days", "_tokens": "tokens", "_chars": "characters"}
"""By the end of a setting's name."""


def reference() -> str:
    """The page, as markdown."""
    parts = [HEAD]
    for key, field in Config.model_fields.items():
        if key not in OWN:
            parts.append(f"## `{key}`\n\n{_doc(field)}{_section(field.annotation, key)}".rstrip() + "\n")
    parts.append(f"## A pipeline\n\n{_table(CrawlerConfig, 'pipelines.<name>')}")
    for place in PLACES:
        parts.append(f"## {place.title} (`{place.key}`)\n")
        for use, found in place.plugins().items():
            settings = place.settings_of(use)
            parts.append(f"### `use: {use}`\n\n{_summary(found)}\n\n{_table(settings, '')}")
    parts.append(ENVIRONMENT + "".join(_variables()))
    return "\n".join(parts).rstrip() + "\n"


def _variables() -> Iterator[str]:
    """A row for each variable of our own files, and of the process."""
    for name, (meaning, default) in OF_THE_PROCESS.items():
        yield f"| {name} | {meaning} | {default} |\n"
    for file in sorted(CONFIG.glob("*.yaml")):
        for place, text in _texts(read_yaml(file), ""):
            if text.startswith(PREFIX):
                name, has_default, default = text.removeprefix(PREFIX).partition(":-")
                otherwise = f"`{default}`" if default else "its default" if has_default else "**required**"
                yield f"| {name} | `{place}` | {otherwise} |\n"


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _texts(part, f"{place}[{index}]")
    elif isinstance(value, str):
        yield place, value


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
        rows.append(f"| `{name}` | {_type(name, field)} | {_default(field)} | {_doc(field).strip()} |")
        inner.extend(f"\n`{place}`:\n\n{_table(m, place)}" for m in _models(field.annotation))
    return "\n".join(rows) + "\n" + "".join(inner)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings models that an annotation names, in lists, unions and mappings too."""
    if inspect.isclass(annotation) and issubclass(annotation, Settings):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _type(name: str, field: FieldInfo) -> str:
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    kind = _name(field.annotation)
    return (unit if unit and kind == "number" else kind).replace("|", "\\|")


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
