"""A proxy with LiteLLM's response cache, a collection, and questions whose rounds can be counted."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.library import Library, litellm_config
from tests.support.scripted_upstream import KEY, ScriptedUpstream

SEARCH = {"name": "search_documents", "arguments": {"query": "notice period"}}
ASKED_ONCE = [0, 1]
"""The rounds that the model played: a search, and an answer."""
FOR_ALL, FOR_ALICE = "The notice period is thirty days.", "In secret the notice period is a year."


@dataclass
class House:
    library: Library
    upstream: ScriptedUpstream

    def question(self) -> tuple[str, str]:
        """A question that nobody asked before, and the word that it is found by."""
        mark = uuid.uuid4().hex
        return mark, json.dumps([{"calls": [SEARCH], "id": mark}, {"text": ["It says so <1>."]}])

    def ask(self, person: str, question: str, **body: Any) -> httpx.Response:
        messages = [{"role": "user", "content": question}]
        return self.post(person, "/v1/chat/completions", {"model": "chat", "messages": messages, **body})

    def post(self, person: str, path: str, body: dict[str, Any]) -> httpx.Response:
        with self.library.http(person) as http:
            answer = http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer

    def rounds(self, mark: str) -> list[int]:
        """Which rounds the model was asked for, by whomever."""
        return [asked.round for asked in self.upstream.of(mark)]


@dataclass
class Shelf:
    """A collection of alice's that bob may query, with a document for both; `shelf` has one for her alone."""

    library: Library
    id: str
    documents: dict[str, str]

    def request(self, method: str, path: str, **options: Any) -> Any:
        with self.library.http("alice") as http:
            answer = http.request(method, f"/v1/collections/{self.id}{path}", **options)
        assert answer.is_success, answer.text
        return answer.json()

    def add(self, text: str, **fields: Any) -> str:
        body = {"documents": [{"markdown": text, "filename": f"{uuid.uuid4().hex}.md", **fields}]}
        [document] = self.request("POST", "/add?wait=true", json=body)["data"]
        assert document["status"] == "completed", document
        return str(document["id"])

    def done(self, document_id: str) -> bool:
        return bool(self.request("GET", f"/documents/{document_id}")["status"] == "completed")

    @property
    def rag(self) -> dict[str, Any]:
        return {"rag": {"collections": [self.id]}}


def litellm_with(upstream: ScriptedUpstream, cache: Mapping[str, Any]) -> dict[str, Any]:
    """LiteLLM's configuration with this cache. Of `bridged`, LiteLLM makes every API's requests chats."""
    params = {"api_base": upstream.url, "api_key": KEY, "num_retries": 0, "input_cost_per_token": 0.01}
    models = [
        {"model_name": name, "litellm_params": {"model": served_by, **params}}
        for name, served_by in (("chat", "openai/chat"), ("bridged", "together_ai/bridged"))
    ]
    config = litellm_config(models)
    config["litellm_settings"] |= {"cache": True, "cache_params": dict(cache)}
    return config


@contextmanager
def a_shelf(library: Library) -> Iterator[Shelf]:
    """With the document for both."""
    with library.http("alice") as http:
        body = {"name": f"shelf-{uuid.uuid4().hex}", "access": {"query": ["user:local/bob"]}}
        created = http.post("/v1/collections/new", json=body)
    assert created.status_code == 201, created.text
    made = Shelf(library, created.json()["id"], {})
    made.documents["all"] = made.add(FOR_ALL)
    yield made
    made.request("DELETE", "")


def content(answer: httpx.Response) -> str:
    """The text of an answer, plain or streamed."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
