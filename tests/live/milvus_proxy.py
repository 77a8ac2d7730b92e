"""The stock proxy with a Milvus server behind it, and people who have users of their own there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pymilvus import MilvusClient  # type: ignore[import-untyped]

from tests.live.milvus import Server
from tests.support.proxy import MASTER_KEY, ROOT, Proxy, proxy

HEADER = "X-Milvus-Credential"
NONE = ""
"""As a person's credential: none is sent."""
CACHE_S = 1.0
PEOPLE = ("alice", "bob", "carol", "dave", "erin")
LITELLM: dict[str, Any] = {
    "model_list": [
        {
            "model_name": "local/minilm",
            "litellm_params": {
                "model": "local/minilm",
                "additional_drop_params": ["encoding_format", "user"],
            },
        },
        {
            "model_name": "extractive",
            "litellm_params": {"model": "local/extractive"},
            "model_info": {"rag": True},
        },
    ],
    "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
    "general_settings": {
        "custom_auth": "plugins.entry.authenticate",
        "custom_auth_run_common_checks": True,
        "master_key": "os.environ/LITELLM_MASTER_KEY",
    },
}


def key(person: str) -> str:
    return MASTER_KEY if person == "master" else f"sk-local-{person}-0123456789"


@dataclass
class House:
    """A running proxy; `credentials` are what people send for Milvus, by their names."""

    proxy: Proxy
    server: Server
    credentials: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    """All that was answered."""

    def ask(self, person: str, method: str, path: str, **request: Any) -> httpx.Response:
        credential = request.pop("credential", self.credentials.get(person))
        headers = {"Authorization": f"Bearer {request.pop('token', key(person))}"}
        if credential:
            headers[HEADER] = credential
        answer = httpx.request(
            method, f"{self.proxy.url}{path}", headers=headers, timeout=60, trust_env=False, **request
        )
        self.answers.append(f"{answer.headers} {answer.text}")
        assert answer.status_code != 500, answer.text
        return answer

    def refusal(self, person: str, name: str) -> int:
        """How the person is refused a right to what they have none to: servers from 2.5 hide it from them."""
        client = MilvusClient(self.server.uri, token=self.credentials[person])
        return 403 if name in client.list_collections() else 404

    def names(self, person: str, **request: Any) -> set[str]:
        answer = self.ask(person, "GET", "/v1/collections", **request)
        assert answer.status_code == 200, answer.text
        return {view["name"] for view in answer.json()["data"]}


@contextmanager
def house(
    folder: Path,
    server: Server,
    collections: Mapping[str, Any],
    *,
    uri: str | None = None,
    issuers: Sequence[Mapping[str, Any]] = (),
) -> Iterator[House]:
    """The proxy, with `collections` as its settings of collections and further identity sources."""
    prompts = folder / "config" / "prompts"
    prompts.mkdir(parents=True)
    (prompts / "answer.md").write_text(
        (ROOT / "config" / "prompts" / "answer.md").read_text(encoding="utf-8"), encoding="utf-8"
    )
    keys = [{"key": key(person), "user": person} for person in PEOPLE]
    sources = [{"use": "api_keys", "name": "local", "keys": keys}, {"use": "litellm"}, *issuers]
    store = {"use": "milvus", "uri": uri or server.uri, "user": server.user, "password": server.password}
    tools = ("search_documents", "list_collections", "read_document")
    config: dict[str, Any] = {
        "identity": {"identity": {"sources": sources, "store_credential_header": HEADER}},
        "collections": {"collections": dict(collections)},
        "storage": {"storage": {"data_dir": str(folder / "data"), "store": store}},
        "tools": {"tools": [{"use": name, "allow": ["*"]} for name in tools]},
    }
    with proxy(folder, LITELLM, config) as running:
        yield House(running, server)
