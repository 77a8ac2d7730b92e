"""Open WebUI, Keycloak and the proxy with documents, together on loopback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.keycloak.keycloak import Server
from tests.live.keycloak_callers import source
from tests.live.keycloak_realm import Realm, throwaway
from tests.live.ollama import Ollama
from tests.live.open_webui_server import CannotRun, Connection, OpenWebUI, server
from tests.live.open_webui_upstream import NAME, Upstream, upstream
from tests.support.proxy import ROOT, Proxy, free_port, proxy
from tests.support.quickstart import until

TASKS = {"X-RAG-Task": "{{TASK}}"}
"""How the proxy knows a question from a request for a title; `docs/open-webui.md`."""
ONLY_FINANCE = Connection({**TASKS, "X-RAG-Collections": "finance"}, prefix="finance")
DOCUMENTS = {"finance": "annual-report-2025.pdf", "handbook": "employee-handbook.md"}
DEADLINE_S = 120.0


@dataclass
class House:
    web: OpenWebUI
    proxy: Proxy
    realm: Realm
    upstream: Upstream
    ollama: Ollama | str
    """Or why there is none."""
    artefacts: Path
    """Takes the screenshots."""


def models(address: str, *more: dict[str, Any]) -> dict[str, Any]:
    """LiteLLM's configuration: `extractive` needs nothing else, `assistant` is the model at the address."""
    own = {"model": f"openai/{NAME}", "api_base": address, "api_key": "none", "num_retries": 0}
    local = {"model": "local/minilm", "additional_drop_params": ["encoding_format", "user"]}
    chat = {"mode": "chat", "rag": True, "supports_function_calling": True}
    return {
        "model_list": [
            {"model_name": "extractive", "litellm_params": {"model": "local/extractive"}, "model_info": chat},
            {"model_name": NAME, "litellm_params": {**own, "timeout": DEADLINE_S}, "model_info": chat},
            {"model_name": "local/minilm", "litellm_params": local, "model_info": {"mode": "embedding"}},
            *more,
        ],
        "router_settings": {"disable_cooldowns": True},
        "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "custom_auth": "plugins.entry.authenticate",
            "custom_auth_run_common_checks": True,
        },
    }


def of_ollama(server: Ollama) -> dict[str, Any]:
    params = {"model": f"ollama_chat/{server.model}", "api_base": server.url, "num_retries": 0}
    return {
        "model_name": "ollama",
        "litellm_params": {**params, "num_ctx": 8192, "timeout": DEADLINE_S},
        "model_info": {"mode": "chat", "rag": True, "supports_function_calling": True},
    }


def ours(folder: Path, realm: Realm, port: int) -> dict[str, Any]:
    """What our YAML files hold: everyone sees both collections, and finance may query `finance`."""
    shutil.copytree(ROOT / "config" / "prompts", folder / "config" / "prompts")
    content: dict[str, Any] = {
        "identity": {"sources": [source(realm), {"use": "litellm"}]},
        "collections": {
            "policy": [
                {"names": "*", "discover": ["*"], "manage": ["user:keycloak/admin"]},
                {"names": "handbook", "query": ["*"]},
                {"names": "finance", "query": ["group:keycloak/finance"]},
            ],
            "create": [{"names": "*", "subjects": ["user:keycloak/admin"]}],
        },
        "storage": {"data_dir": str(folder / "data")},
        "tools": [
            {"use": name, "allow": ["*"]}
            for name in ("search_documents", "list_collections", "read_document")
        ],
        "chat": {"public_base_url": f"http://127.0.0.1:{port}", "deadline_s": DEADLINE_S},
    }
    return {name: {name: value} for name, value in content.items()}


def upload(running: Proxy, realm: Realm) -> None:
    headers = {"Authorization": f"Bearer {realm.tokens('admin')['access_token']}"}
    with httpx.Client(base_url=running.url, headers=headers, timeout=60, trust_env=False) as admin:
        for name, file in DOCUMENTS.items():
            made = admin.post("/v1/collections/new", json={"name": name})
            assert made.is_success, made.text
            content = (ROOT / "examples" / "documents" / file).read_bytes()
            added = admin.post(f"/v1/collections/{name}/add", files={"files": (file, content)})
            assert added.is_success, added.text

        def ready() -> bool:
            lists = [admin.get(f"/v1/collections/{name}/documents").json()["data"] for name in DOCUMENTS]
            return [document["status"] for found in lists for document in found] == ["completed"] * 2

        until(ready, "the documents are searchable")


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """TEST_ARTEFACTS, or a temporary folder, which is told at the end."""
    if chosen := os.environ.get("TEST_ARTEFACTS"):
        folder = Path(chosen)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = tmp_path_factory.mktemp("open-webui-screenshots")
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"screenshots of Open WebUI: {folder}")
    return folder


@pytest.fixture(scope="module")
def house(
    keycloak: Server,
    artefacts: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[House]:
    """All of it with two documents, for the people of the realm; skipped where something is missing."""
    folder, port = tmp_path_factory.mktemp("house"), free_port()
    real: Ollama | str
    try:
        real = request.getfixturevalue("ollama")
    except pytest.skip.Exception as missing:
        real = str(missing)
    with ExitStack() as stack:
        realm = stack.enter_context(throwaway(keycloak))
        model = stack.enter_context(upstream())
        more = [] if isinstance(real, str) else [of_ollama(real)]
        config = models(model.url, *more)
        running = stack.enter_context(proxy(folder, config, ours(folder, realm, port), port=port))
        upload(running, realm)
        try:
            web = stack.enter_context(
                server(folder / "web", realm.url, running.url, [Connection(TASKS), ONLY_FINANCE])
            )
        except CannotRun as error:
            pytest.skip(str(error))
        yield House(web, running, realm, model, real, artefacts)
