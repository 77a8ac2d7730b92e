"""`GET /api/admin/config`: what is in force, where it is from, and nothing secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.bundle.effective import effective
from plugins.core.config import load

KEY = "sk-a-key-of-the-tests-0123456789"
PASSWORD = "pass-word-of-the-tests"


def values(folder: Path, **files: Any) -> dict[str, tuple[Any, str]]:
    """Value and origin of each setting, of these files."""
    identity = {"sources": [{"use": "api_keys", "keys": [{"key": "os.environ/A_KEY", "user": "alice"}]}]}
    for name, content in {"identity": {"identity": identity}, **files}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    found = effective(load(folder))
    assert KEY not in repr(found)
    assert PASSWORD not in repr(found)
    return {value.key: (value.value, value.origin) for value in found}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("ROUNDS", "7")


def test_a_value_is_from_its_file_from_the_environment_or_a_default(tmp_path: Path) -> None:
    chat = {"max_rounds": "os.environ/ROUNDS", "max_tool_calls": "os.environ/UNSET:-9", "deadline_s": 60}
    found = values(tmp_path, settings={"chat": {**chat, "prompt": "os.environ/UNSET:-"}})
    assert found["chat.max_rounds"] == (7, "environment:ROUNDS")
    assert found["chat.max_tool_calls"] == (9, "settings.yaml")
    assert found["chat.deadline_s"] == (60.0, "settings.yaml")
    assert found["chat.prompt"] == ("answer.md", "default")
    assert found["chat.tool_timeout_s"] == (30.0, "default")
    assert found["limits.max_files"] == (100, "default")


def test_a_secret_from_the_environment_or_from_a_file_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"postgresql://us:{PASSWORD}@127.0.0.1/db\n", encoding="utf-8")
    monkeypatch.setenv("URL_FILE", str(secret))
    store = {"use": "milvus", "uri": "http://127.0.0.1:1", "user": "us", "password": PASSWORD}
    storage = {"storage": {"database": "os.environ/URL", "store": store}}
    worker = {"worker": {"proxy_url": f"http://us:{PASSWORD}@127.0.0.1:1"}}
    found = values(tmp_path, storage=storage, worker=worker)
    assert found["identity.sources[0].keys[0].key"] == ("********", "environment:A_KEY")
    assert found["storage.database"] == ("********", "environment:URL_FILE")
    assert found["storage.store.password"] == ("********", "storage.yaml")
    assert found["storage.store.user"] == ("us", "storage.yaml")
    assert found["worker.proxy_url"] == ("http://********@127.0.0.1:1", "worker.yaml")


@pytest.mark.parametrize(
    "user", [f"us:{PASSWORD}", f"us:a@{PASSWORD}", f"us:a/{PASSWORD}", f"us:a?{PASSWORD}"]
)
def test_a_password_in_an_address_is_masked_whatever_is_in_it(tmp_path: Path, user: str) -> None:
    found = values(tmp_path, worker={"worker": {"proxy_url": f"http://{user}@127.0.0.1:1"}})
    assert found["worker.proxy_url"][0] == "http://********@127.0.0.1:1"


def test_a_secret_that_an_outside_plugin_did_not_declare_is_masked_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acme"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jira.py").write_text(
        """
from crawler.settings import Settings
from plugins.core.ports import Call, Tool, ToolResult
from pydantic import BaseModel


class JiraSettings(Settings):
    api_token: str
    headers: dict[str, str] = {}
    servers: list[dict[str, str]] = []
    tokens: dict[str, str | list[dict[str, str]]] = {}
    api_keys: list[str] = []
    address: str = ""
    project: str = "HR"


class Arguments(BaseModel):
    pass


class Jira(Tool[JiraSettings, Arguments]):
    async def run(self, args: Arguments, call: Call) -> ToolResult:
        return ToolResult()
""",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    told = {
        "api_token": PASSWORD,
        "headers": {"X-Api-Key": PASSWORD, "Authorization": PASSWORD, "Accept": "text/plain"},
        "servers": [{"host": "a", "password": PASSWORD}],
        "tokens": {"alice": PASSWORD, "bob": [{"value": PASSWORD}]},
        "api_keys": [PASSWORD],
        "address": f"https://jira.example/x?a=b&api_key={PASSWORD}&c=d",
    }
    found = values(tmp_path, tools={"tools": [{"use": "acme.jira", **told, "allow": ["*"]}]})
    assert found["tools[0].headers.Accept"] == ("text/plain", "tools.yaml")
    assert found["tools[0].servers[0].host"] == ("a", "tools.yaml")
    assert found["tools[0].address"][0] == "https://jira.example/x?a=b&api_key=********&c=d"
    assert found["tools[0].api_token"] == ("********", "tools.yaml")
    assert found["tools[0].tokens.alice"] == ("********", "tools.yaml")
    assert found["tools[0].tokens.bob[0].value"] == ("********", "tools.yaml")
    assert found["tools[0].project"] == ("HR", "default")
    assert found["tools[0].allow"] == (["*"], "tools.yaml")


def test_plugins_show_their_own_settings_with_their_defaults(tmp_path: Path) -> None:
    pipelines = {"v1.2": {}, "fast": {"chunker": {"use": "headings", "max_tokens": 100}}}
    found = values(tmp_path, tools={"tools": [{"use": "read_document"}]}, pipelines={"pipelines": pipelines})
    assert found["tools[0].max_chars"] == (20_000, "default")
    assert found["pipelines.fast.chunker.max_tokens"] == (100, "pipelines.yaml")
    assert found["pipelines.fast.chunker.overlap_tokens"] == (0, "default")
    assert found["pipelines.v1.2.extractor.use"] == ("rules", "default")
    assert found["pipelines.fast.extractor.use"] == ("rules", "default")
    assert found["storage.store.use"] == ("milvus", "default")
