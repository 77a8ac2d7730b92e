"""The JSON schema of the YAML files in `config/`, from the settings models: editors check by it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from crawler.crawler import CrawlerConfig, PluginConfig
from crawler.settings import PREFIX
from plugins.bundle.effective import OWN
from plugins.bundle.places import PLACES, Place
from plugins.core.config import Config, ToolEntry
from plugins.core.identity_config import Source
from plugins.core.plugin import Plugin

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The newest that editors' YAML servers know."""
VARIABLE = {
    "type": "string",
    "pattern": f"^{PREFIX}[A-Za-z_][A-Za-z0-9_]*(:-.*)?$",
    "description": "Taken from the environment, or from the file that NAME_FILE names",
}
ENTRIES = {"identity.sources": Source, "tools": ToolEntry}
"""What stands beside `use` of some plugins, whatever plugin it is."""
Node = dict[str, Any]


def schema() -> str:
    """As JSON. Every file holds some of the keys, so none is required."""
    plugins = {place: place.plugins() for place in PLACES}
    settings = [place.settings_of(use) for place, found in plugins.items() for use in found]
    models: list[type[BaseModel]] = [
        Config,
        CrawlerConfig,
        PluginConfig,
        Plugin,
        *ENTRIES.values(),
        *settings,
    ]
    names, made = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)], ref_template="#/definitions/{model}"
    )
    definitions: dict[str, Node] = made["$defs"]
    known: dict[Any, Node] = {
        model: definitions[names[model, "validation"]["$ref"].rpartition("/")[2]] for model, _ in names
    }
    for place, found in plugins.items():
        own = {use: known[place.settings_of(use)] for use in found}
        definitions[place.contract.__name__] = _entries(place, own, known)
    _name_plugins(known, definitions)
    for node in definitions.values():
        _refine(node)
    keys = {key: node for key, node in known[Config]["properties"].items() if key not in OWN}
    kept = _reachable(keys, definitions)
    result = {
        "$schema": DIALECT,
        "title": "Configuration of collections",
        "type": "object",
        "properties": keys,
        "additionalProperties": False,
        "definitions": {"Variable": VARIABLE, **{name: definitions[name] for name in sorted(kept)}},
    }
    return json.dumps(result, indent=1, ensure_ascii=False) + "\n"


def _entries(place: Place, own: dict[str, Node], known: dict[Any, Node]) -> Node:
    """Any plugin of this place: `use` tells which settings may stand beside it."""
    beside = dict(known[ENTRIES.get(place.key, Plugin)]["properties"])
    use = beside.pop("use")
    options = []
    for name, settings in own.items():
        found = {
            "type": "object",
            "properties": {"use": {"const": name}, **beside, **settings.get("properties", {})},
            "required": ["use", *settings.get("required", [])],
            "additionalProperties": False,
        }
        options.append(found)
    outside = {**use, "pattern": r"\."}
    options.append(
        {
            "type": "object",
            "description": "A plugin of an installed package",
            "properties": {"use": outside, **beside},
            "required": ["use"],
        }
    )
    return json.loads(json.dumps({"anyOf": options}))  # type: ignore[no-any-return]  # a copy of what it shares


def _name_plugins(known: dict[Any, Node], definitions: dict[str, Node]) -> None:
    """Say in each place which plugins may be there."""
    config, pipeline = known[Config]["properties"], known[CrawlerConfig]["properties"]
    identity, storage = (
        definitions["IdentityConfig"]["properties"],
        definitions["StorageConfig"]["properties"],
    )
    identity["sources"]["items"] = _ref("IdentitySource")
    config["tools"]["items"] = _ref("Tool")
    config["pipelines"]["additionalProperties"] = _ref("CrawlerConfig")
    pipeline["formats"]["items"] = _ref("Format")
    for properties, name, contract in (
        (storage, "store", "Store"),
        (storage, "originals", "Originals"),
        (pipeline, "chunker", "Chunker"),
        (pipeline, "extractor", "Extractor"),
    ):
        properties[name]["$ref"] = _ref(contract)["$ref"]


def _ref(name: str) -> Node:
    return {"$ref": f"#/definitions/{name}"}


def _refine(node: Node) -> None:
    """Let every value be taken from the environment; leave out what says nothing to a reader."""
    if isinstance(node.get("title"), str):
        del node["title"]
    if isinstance(node.get("default"), dict | list):
        del node["default"]  # it is told where those settings are
    for option in node.get("anyOf", ()):
        _refine(option)
    for name, value in node.get("properties", {}).items():
        if name != "use":
            node["properties"][name] = _or_variable(value)
    for inner in ("items", "additionalProperties"):
        if isinstance(node.get(inner), dict):
            node[inner] = _or_variable(node[inner])


def _or_variable(node: Node) -> Node:
    _refine(node)
    if node.get("type") == "string" and not {"pattern", "enum", "const"} & node.keys():
        return node  # any text will do
    outside: Node = {name: node.pop(name) for name in ("description", "default") if name in node}
    options = node["anyOf"] if node.keys() == {"anyOf"} else [node] if node else []
    return {**outside, "anyOf": [*options, _ref("Variable")]} if options else {**outside, **node}


def _reachable(node: Any, definitions: dict[str, Node]) -> set[str]:
    """The names of the definitions that a node refers to, and that those refer to."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, dict):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name in definitions and name not in found:
                found.add(name)
                waiting.append(definitions[name])
            waiting.extend(part.values())
    return found
