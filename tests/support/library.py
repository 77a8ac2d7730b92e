"""The stock proxy with one document, and people who may and may not ask for it: to try models and clients."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.support.proxy import MASTER_KEY, ROOT, Proxy, free_port, proxy
from tests.support.quickstart import until

CODE = secrets.token_hex(8)
"""Stands in the document alone."""
TEXT = f"# Notice\n\nThe notice period is ninety days. Its code is {CODE}."
QUESTION = "What is the notice period, and what is its code? Search the documents."
COLLECTION = "handbook"
PEOPLE = ("alice", "bob", "hasty")
"""alice made the collection, bob only knows of it, hasty may ask once a minute."""
DEADLINE_S = 300.0
"""A model that is not ours may be slow, and may have to be loaded first."""


def key(person: str) -> str:
    return MASTER_KEY if person == "master" else f"sk-local-{person}-0123456789"


@dataclass
class Library:
    proxy: Proxy

    @property
    def base_url(self) -> str:
        return f"{self.proxy.url}/v1"

    def http(self, person: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.proxy.url,
            headers={"Authorization": f"Bearer {key(person)}"},
            timeout=DEADLINE_S + 30,
            trust_env=False,
        )

    def ask(self, person: str, model: str = "chat", **options: Any) -> Any:
        """The answer; of a streamed one all chunks."""
        with self.http(person) as http:
            client = openai.OpenAI(
                base_url=self.base_url, api_key=key(person), max_retries=0, http_client=http
            )
            asked: Any = {"model": model, "messages": [{"role": "user", "content": QUESTION}], **options}
            answer: Any = client.chat.completions.create(**asked)
            return list(answer) if options.get("stream") else answer


def litellm_config(models: list[dict[str, Any]], **router: Any) -> dict[str, Any]:
    """LiteLLM's configuration with these models and the built-in one that embeds."""
    local = {"model": "local/minilm", "additional_drop_params": ["encoding_format", "user"]}
    embedder = {
        "model_name": "local/minilm",
        "litellm_params": local,
        "model_info": {"mode": "embedding"},
    }
    return {
        "model_list": [*models, embedder],
        "router_settings": {"disable_cooldowns": True, **router},
        "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "custom_auth": "plugins.entry.authenticate",
            "custom_auth_run_common_checks": True,
        },
    }


def our_config(folder: Path, port: int) -> dict[str, Any]:
    """What our YAML files hold."""
    shutil.copytree(ROOT / "config" / "prompts", folder / "config" / "prompts")
    keys = [{"key": key(person), "user": person} for person in PEOPLE]
    tools = ("search_documents", "list_collections", "read_document")
    content: dict[str, Any] = {
        "identity": {
            "sources": [{"use": "api_keys", "name": "local", "keys": keys}, {"use": "litellm"}],
            "allowances": [{"subjects": ["user:local/hasty"], "rpm_limit": 1}],
        },
        "collections": {
            "policy": [{"names": "*", "discover": ["*"]}],
            "create": [{"names": "*", "subjects": ["user:local/alice"]}],
        },
        "storage": {"data_dir": str(folder / "data")},
        "tools": [{"use": name, "allow": ["*"]} for name in tools],
        "chat": {"public_base_url": f"http://127.0.0.1:{port}", "deadline_s": DEADLINE_S},
    }
    return {name: {name: value} for name, value in content.items()}


@contextmanager
def library(
    folder: Path,
    litellm: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Library]:
    """The proxy with one document of alice's; ``extra`` are further files of ours."""
    port = free_port()
    config = {**our_config(folder, port), **(extra or {})}
    with proxy(folder, litellm, config, environment, port=port) as running:
        made = Library(running)
        with made.http("alice") as alice:
            upload(alice)
        yield made


def upload(alice: httpx.Client) -> None:
    collection = alice.post("/v1/collections/new", json={"name": COLLECTION})
    assert collection.status_code == 201, collection.text
    path = f"/v1/collections/{collection.json()['id']}"
    document = {"markdown": TEXT, "filename": "notice.md"}
    added = alice.post(f"{path}/add", json={"documents": [document]})
    assert added.is_success, added.text

    def ready() -> bool:
        documents = alice.get(f"{path}/documents").json()["data"]
        return [document["status"] for document in documents] == ["completed"]

    until(ready, "the document is searchable")
