"""The configuration is taken up without a restart: proxy, embedded worker and store are real, the chat model
is a stand-in on loopback."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.library import CODE, COLLECTION, Library, library, litellm_config
from tests.support.proxy import MASTER_KEY
from tests.support.quickstart import until
from tests.support.scripted_upstream import ScriptedUpstream, scripted_upstream


@dataclass
class Site:
    library: Library
    upstream: ScriptedUpstream
    folder: Path

    def edit(self, name: str, change: Callable[[Any], object]) -> None:
        """Change what a file of the configuration holds under its name."""
        path = self.folder / "config" / f"{name}.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {name: {}}
        change(content[name])
        path.write_text(yaml.safe_dump(content), encoding="utf-8")

    def reload(self, person: str = "master") -> httpx.Response:
        with self.library.http(person) as http:
            return http.post("/api/admin/reload")

    def taken_up(self) -> dict[str, Any]:
        """Reload, and be sure that proxy and worker have taken it up."""
        answer = self.reload()
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        states = {process["kind"]: process["state"] for process in found["processes"]}
        assert states == {"proxy": "applied", "worker": "applied"}, found
        return found

    def setting(self, key: str) -> dict[str, Any]:
        with self.library.http("master") as http:
            values = http.get("/api/admin/config").json()["values"]
        return next(value for value in values if value["key"] == key)

    def tools(self) -> list[str]:
        with self.library.http("alice") as http:
            return [tool["function"]["name"] for tool in http.get("/v1/tools").json()["data"]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("reload")
    with scripted_upstream() as server:
        params = {"model": "openai/scripted", "api_base": server.url, "api_key": "x", "num_retries": 0}
        model = {
            "model_name": "scripted",
            "litellm_params": params,
            "model_info": {"mode": "chat", "rag": True, "supports_function_calling": True},
        }
        with library(folder, litellm_config([model])) as running:
            yield Site(running, server, folder)


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    """With its files and its configuration as before, in the end."""
    config = made.folder / "config"
    before = {path: path.read_bytes() for path in config.glob("*.yaml")}
    yield made
    for path in config.glob("*.yaml"):
        if path not in before:
            path.unlink()
    for path, content in before.items():
        path.write_bytes(content)
    made.taken_up()


def question(rounds: list[dict[str, Any]], *, stream: bool) -> dict[str, Any]:
    body = {"model": "scripted", "messages": [{"role": "user", "content": json.dumps(rounds)}]}
    return {**body, "stream": stream}


def test_a_reload_is_in_force_in_proxy_and_worker_when_it_is_answered(site: Site) -> None:
    assert "read_document" in site.tools()
    site.edit("tools", lambda tools: tools[2].update(allow=[]))
    first = site.taken_up()
    assert site.tools() == ["search_documents", "list_collections"]
    site.edit("chat", lambda chat: chat.update(max_rounds=3))
    assert site.taken_up()["number"] > first["number"]
    assert site.setting("chat.max_rounds") == {
        "key": "chat.max_rounds",
        "value": 3,
        "origin": "chat.yaml",
    }


def test_with_mistakes_all_of_them_are_told_and_everything_stays(site: Site) -> None:
    site.edit("chat", lambda chat: chat.update(max_rounds="many", surprise=1))
    site.edit("tools", lambda tools: tools.append({"use": "no_such_tool"}))
    answer = site.reload()
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_configuration")
    assert [line.split(": ")[:2] for line in error["mistakes"]] == [
        ["chat.yaml", "chat.max_rounds"],
        ["chat.yaml", "chat.surprise"],
    ]
    assert all(line in error["message"] for line in error["mistakes"])
    assert str(site.folder) not in answer.text
    assert site.setting("chat.max_rounds")["value"] == 5
    assert "read_document" in site.tools()


def test_a_stream_keeps_the_configuration_that_it_began_with(site: Site, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    search = {
        "name": "search_documents",
        "arguments": {"query": "notice period", "collections": [COLLECTION]},
    }
    asked = question(
        [{"text": ["begun ", f"until:{go_on}"], "calls": [search]}, {"text": ["done"]}], stream=True
    )
    pieces: list[str] = []

    def read() -> None:
        with (
            site.library.http("alice") as http,
            http.stream("POST", "/v1/chat/completions", json=asked) as r,
        ):
            pieces.extend(r.iter_lines())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        until(lambda: site.upstream.of(str(go_on)), "the model was asked")
        site.edit("tools", lambda tools: tools.clear())
        site.taken_up()
        assert site.tools() == []
    finally:
        go_on.touch()
        reader.join(60)
    first, second = site.upstream.of(str(go_on))
    assert first.body["tools"]
    assert CODE in json.dumps(second.messages)
    assert "done" in "".join(pieces)
    assert "data: [DONE]" in pieces

    with site.library.http("alice") as http:
        marker = [{"text": ["without"]}]
        answer = http.post("/v1/chat/completions", json=question(marker, stream=False))
    assert answer.is_success, answer.text
    assert "tools" not in site.upstream.of("without")[-1].body


def test_sighup_has_all_processes_reload(site: Site) -> None:
    site.edit("chat", lambda chat: chat.update(max_rounds=7))
    os.kill(site.library.proxy.process.pid, signal.SIGHUP)
    until(lambda: site.setting("chat.max_rounds")["value"] == 7, "the proxy reloaded")
    assert site.library.proxy.process.poll() is None


def test_changed_files_are_taken_up_by_themselves_where_that_is_switched_on(site: Site) -> None:
    site.edit("reload", lambda reload: reload.update(watch=True))
    site.taken_up()
    site.edit("tools", lambda tools: tools.pop())
    until(lambda: site.tools() == ["search_documents", "list_collections"], "the change was seen")


def test_the_embedded_worker_does_its_next_job_by_the_new_configuration(site: Site) -> None:
    site.edit("pipelines", lambda pipelines: pipelines.update(default={"limits": {"max_chunks": 1}}))
    site.taken_up()
    with site.library.http("alice") as http:
        text = "\n\n".join(f"# Part {n}\n\n{'word ' * 150}" for n in range(4))
        body = {"documents": [{"markdown": text, "filename": "long.md"}]}
        added = http.post(f"/v1/collections/{COLLECTION}/add?wait=true", json=body).json()["data"][0]
        path = f"/v1/collections/{COLLECTION}/documents/{added['id']}"
        until(lambda: http.get(path).json()["status"] == "failed", "the job ended")
        assert http.get(path).json()["last_error"]["code"] == "document_too_large"


def test_what_takes_a_restart_is_named_and_the_rest_is_taken_up(site: Site) -> None:
    def move(storage: dict[str, Any]) -> None:
        storage.update(data_dir=str(site.folder / "elsewhere"))

    site.edit("storage", move)
    site.edit("chat", lambda chat: chat.update(max_rounds=9))
    site.edit("worker", lambda worker: worker.update(concurrency=1))
    litellm = site.folder / "litellm_config.yaml"
    text = litellm.read_text(encoding="utf-8")
    litellm.write_text(text + "# changed\n", encoding="utf-8")
    try:
        answer = site.taken_up()
    finally:
        litellm.write_text(text, encoding="utf-8")
    assert answer["not_reloaded"] == ["storage.data_dir", "worker.concurrency", "litellm_config.yaml"]
    assert site.setting("chat.max_rounds")["value"] == 9
    assert site.setting("storage.data_dir")["value"] == str(site.folder / "data")
    assert not (site.folder / "elsewhere").exists()


def test_the_effective_configuration_masks_secrets_and_says_where_each_value_is_from(site: Site) -> None:
    with site.library.http("master") as http:
        answer = http.get("/api/admin/config")
    values = {value["key"]: (value["value"], value["origin"]) for value in answer.json()["values"]}
    assert values["identity.sources[0].keys[0].key"] == ("********", "identity.yaml")
    assert values["identity.sources[0].keys[0].user"] == ("alice", "identity.yaml")
    assert values["chat.max_tool_calls"] == (20, "default")
    assert values["tools[0].max_num_results"] == (20, "default")
    assert "sk-local-alice" not in answer.text
    assert MASTER_KEY not in answer.text


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/admin/reload"), ("GET", "/api/admin/config")])
def test_only_admins_may(site: Site, method: str, path: str) -> None:
    with site.library.http("alice") as http:
        refused = http.request(method, path)
    assert refused.status_code == 403
    assert "`proxy_admin`" in refused.json()["error"]["message"]
