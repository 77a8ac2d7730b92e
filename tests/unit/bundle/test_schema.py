"""`config/schema.json`: by it editors complete our YAML and mark what is wrong in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from plugins.bundle.schema import schema
from tests.support.proxy import ROOT

FILE = ROOT / "config" / "schema.json"
FOLDERS = [ROOT / "config", *sorted({path.parent for path in (ROOT / "deploy").rglob("identity.yaml")})]
FILES = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))]


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    content = json.loads(FILE.read_text(encoding="utf-8"))
    Draft7Validator.check_schema(content)
    return Draft7Validator(content)


def test_the_file_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == schema(), "run `python -m plugins schema > config/schema.json`"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_that_we_ship_is_right_by_it(path: Path, validator: Draft7Validator) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [error.message for error in validator.iter_errors(content)] == []


OURS = [
    path for folder in ("config", "deploy/compose/config") for path in sorted((ROOT / folder).glob("*.yaml"))
]


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_names_it_to_editors(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == ROOT / "config" / "schema.json"


@pytest.mark.parametrize(
    "content",
    [
        {"chats": {}},
        {"chat": {"max_round": 5}},
        {"chat": {"max_rounds": "many"}},
        {"chat": {"max_rounds": 0}},
        {"identity": {"sources": [{"use": "api_keys", "keyz": []}]}},
        {"identity": {"sources": [{"use": "oidc"}]}},
        {"identity": {"sources": [{"use": "odic", "issuer": "https://x", "audience": "y"}]}},
        {"tools": [{"use": "search_documents", "alow": []}]},
        {"storage": {"store": {"use": "milvus", "urI": "x"}}},
        {"pipelines": {"default": {"chunker": {"use": "headings", "max_token": 1}}}},
        {"pipelines": {"default": {"formats": [{"use": "pdfs"}]}}},
        {"pipelines": {"default": {"formats": []}}},
    ],
)
def test_what_is_misspelt_or_impossible_is_marked(
    content: dict[str, Any], validator: Draft7Validator
) -> None:
    assert not validator.is_valid(content)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {
            "chat": {
                "max_rounds": "os.environ/ROUNDS:-5",
                "profiles": {"default": {"mode": "os.environ/MODE"}},
            }
        },
        {"identity": {"sources": [{"use": "acme.saml", "name": "acme", "anything": {"goes": True}}]}},
        {"identity": {"sources": "os.environ/SOURCES"}},
        {"limits": {"quotas": [{"subjects": ["*"], "max_bytes": "10GiB"}]}},
        {"tools": [{"use": "search_documents", "allow": ["os.environ/WHO"]}]},
        {"storage": {"store": {"use": "milvus", "timeout_s": "os.environ/TIMEOUT_S:-30"}}},
    ],
)
def test_what_may_be_is_not_marked(content: dict[str, Any], validator: Draft7Validator) -> None:
    assert [error.message for error in validator.iter_errors(content)] == []


def test_settings_are_explained_and_have_their_defaults() -> None:
    content = json.loads(schema())
    chat = content["definitions"]["ChatConfig"]["properties"]["deadline_s"]
    assert "in seconds" in chat["description"]
    assert chat["default"] == 120.0
