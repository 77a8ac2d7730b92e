"""Answers from documents by a model of a real Ollama, through the stock proxy, and what the doctor says.

Of a model that is not ours only that is asked which any model does: it may decide to search for nothing.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.live.ollama import WITHOUT_TOOLS, Ollama, ollama
from tests.live.tiny_ollama.model import CITED, GREETING, NOTHING
from tests.support.proxy import MASTER_KEY, ROOT, Proxy, free_port, proxy, variables, write
from tests.support.quickstart import until

__all__ = ["ollama"]

CODE = secrets.token_hex(8)
"""Stands in the document alone."""
TEXT = f"# Notice\n\nThe notice period is ninety days. Its code is {CODE}."
QUESTION = "What is the notice period, and what is its code? Search the documents."
DEADLINE_S = 300.0
"""A model that is not ours may be slow, and may have to be loaded first."""
DOCTOR_S = 240


def key(person: str) -> str:
    return MASTER_KEY if person == "master" else f"sk-local-{person}-0123456789"


@dataclass
class House:
    proxy: Proxy
    ollama: Ollama

    def http(self, person: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.proxy.url,
            headers={"Authorization": f"Bearer {key(person)}"},
            timeout=DEADLINE_S + 30,
            trust_env=False,
        )

    def ask(self, person: str, model: str = "chat") -> Any:
        with self.http(person) as http:
            client = openai.OpenAI(
                base_url=f"{self.proxy.url}/v1", api_key=key(person), max_retries=0, http_client=http
            )
            return client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": QUESTION}]
            )

    def stream(self, person: str, model: str = "chat") -> list[dict[str, Any]]:
        """The chunks, as they are on the wire; the answer is a whole one."""
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
        with self.http(person) as http:
            answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        chunks = [json.loads(line) for line in lines[:-1]]
        assert not [chunk for chunk in chunks if "error" in chunk]
        return chunks


def models(server: Ollama) -> dict[str, Any]:
    """LiteLLM's configuration: `chat` has our tools, `plain` is the same model without them."""
    base = {"api_base": server.url, "num_ctx": 8192, "num_retries": 0}
    params = {**base, "model": f"ollama_chat/{server.model}", "timeout": DEADLINE_S}
    local = {"model": "local/minilm", "additional_drop_params": ["encoding_format", "user"]}
    return {
        "model_list": [
            {"model_name": "chat", "litellm_params": params, "model_info": {"mode": "chat", "rag": True}},
            {"model_name": "plain", "litellm_params": params, "model_info": {"mode": "chat"}},
            {"model_name": "local/minilm", "litellm_params": local, "model_info": {"mode": "embedding"}},
        ],
        "router_settings": {"disable_cooldowns": True},
        "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "custom_auth": "plugins.entry.authenticate",
            "custom_auth_run_common_checks": True,
        },
    }


def ours(folder: Path, port: int) -> dict[str, Any]:
    """What our YAML files hold: alice may make collections, bob knows of them."""
    prompts = folder / "config" / "prompts"
    prompts.mkdir(parents=True)
    (prompts / "answer.md").write_text(
        (ROOT / "config" / "prompts" / "answer.md").read_text(encoding="utf-8"), encoding="utf-8"
    )
    keys = [{"key": key(person), "user": person} for person in ("alice", "bob")]
    tools = ("search_documents", "list_collections", "read_document")
    content: dict[str, Any] = {
        "identity": {"sources": [{"use": "api_keys", "name": "local", "keys": keys}, {"use": "litellm"}]},
        "collections": {
            "policy": [{"names": "*", "discover": ["*"]}],
            "create": [{"names": "*", "subjects": ["user:local/alice"]}],
        },
        "storage": {"data_dir": str(folder / "data")},
        "tools": [{"use": name, "allow": ["*"]} for name in tools],
        "chat": {"public_base_url": f"http://127.0.0.1:{port}", "deadline_s": DEADLINE_S},
    }
    return {name: {name: value} for name, value in content.items()}


@pytest.fixture(scope="module")
def house(ollama: Ollama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The proxy with one document of alice's."""
    folder, port = tmp_path_factory.mktemp("house"), free_port()
    with proxy(folder, models(ollama), ours(folder, port), port=port) as running:
        made = House(running, ollama)
        with made.http("alice") as alice:
            upload(alice)
        yield made


def upload(alice: httpx.Client) -> None:
    collection = alice.post("/v1/collections/new", json={"name": "handbook"})
    assert collection.status_code in (200, 201), collection.text
    path = f"/v1/collections/{collection.json()['id']}"
    document = {"markdown": TEXT, "filename": "notice.md"}
    added = alice.post(f"{path}/add", json={"documents": [document]})
    assert added.is_success, added.text

    def ready() -> bool:
        documents = alice.get(f"{path}/documents").json()["data"]
        return [document["status"] for document in documents] == ["completed"]

    until(ready, "the document is searchable")


def doctor(folder: Path, litellm: Mapping[str, Any]) -> dict[str, Any]:
    """What it finds, of the configuration in this folder."""
    config = write(folder, litellm, ours(folder, free_port()))
    ran = subprocess.run(
        [sys.executable, "-m", "plugins", "doctor", "--json"],
        cwd=folder,
        env=variables(folder, config),
        capture_output=True,
        text=True,
        timeout=DOCTOR_S,
        check=False,
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    assert ran.returncode == (0 if found["ok"] else 1), ran.stdout
    return found


def said(found: Mapping[str, Any], part: str, level: str) -> str:
    findings = [one for one in found["findings"] if one["part"] == part and one["level"] == level]
    return "\n".join(f"{one['found']} -> {one['do']}" for one in findings)


def test_an_answer_cites_the_passage_that_the_model_searched_for(house: House) -> None:
    choice = house.ask("alice").choices[0]
    message = choice.message
    assert not message.tool_calls
    if house.ollama.tiny:
        assert choice.finish_reason == "stop"
        assert message.content == "".join(CITED)
        [annotation] = message.annotations
        cited = annotation.url_citation
        assert message.content[cited.start_index : cited.end_index] == "[1]"
        [passage] = message.provider_specific_fields["search_results"]
        assert CODE in passage["text"]
        with house.http("alice") as alice, house.http("bob") as bob:
            assert CODE in alice.get(cited.url).text
            assert bob.get(cited.url).status_code == 403


def test_a_streamed_answer_cites_it_as_well(house: House) -> None:
    choices = [choice for chunk in house.stream("alice") for choice in chunk["choices"]]
    assert not [choice for choice in choices if choice["delta"].get("tool_calls")]
    if house.ollama.tiny:
        assert [choice["finish_reason"] for choice in choices if choice.get("finish_reason")] == ["stop"]
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == "".join(CITED)
        [last] = [choice["delta"] for choice in choices if choice["delta"].get("annotations")]
        plain = house.ask("alice").choices[0].message.annotations
        assert last["annotations"] == [annotation.model_dump() for annotation in plain]
        [passage] = last["provider_specific_fields"]["search_results"]
        assert CODE in passage["text"]


def test_a_person_without_query_gets_nothing_of_it(house: House) -> None:
    plain, chunks = house.ask("bob"), house.stream("bob")
    assert CODE not in plain.model_dump_json()
    assert CODE not in json.dumps(chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert not [choice for choice in choices if choice["delta"].get("annotations")]
    assert not plain.choices[0].message.annotations
    if house.ollama.tiny:
        assert plain.choices[0].message.content == "".join(NOTHING)


def test_a_model_without_rag_answers_as_ever(house: House) -> None:
    pieces = [
        choice["delta"]["content"]
        for chunk in house.stream("alice", "plain")
        for choice in chunk["choices"]
        if choice["delta"].get("content")
    ]
    assert CODE not in "".join(pieces)
    if house.ollama.tiny:
        assert pieces == list(GREETING), "token by token"


def test_the_doctor_says_that_the_model_answers_and_calls_tools(ollama: Ollama, tmp_path: Path) -> None:
    found = doctor(tmp_path, models(ollama))
    assert said(found, "model chat", "fail") == ""
    assert f"{ollama.url} has " in said(found, "ollama", "ok")
    assert f"`{ollama.model}` can: " in said(found, "ollama", "ok")
    if ollama.tiny:
        assert "`tiny` can: completion, tools" in said(found, "ollama", "ok")
        assert "answers, and calls tools" in said(found, "model chat", "ok")
        assert found["ok"], found


def test_the_doctor_says_of_a_model_that_is_not_there_how_to_get_it(ollama: Ollama, tmp_path: Path) -> None:
    gone = Ollama(ollama.url, "not-a-model-of-anybody", ollama.tiny)
    found = doctor(tmp_path, models(gone))
    assert not found["ok"]
    assert "the provider does not know this model" in said(found, "model chat", "fail")
    assert "Run `ollama pull not-a-model-of-anybody` there." in said(found, "ollama", "warn")


def test_the_doctor_tells_a_model_that_cannot_call_tools(ollama: Ollama, tmp_path: Path) -> None:
    if not ollama.tiny:
        pytest.skip(
            "nothing is made on a server of OLLAMA_BASE_URL, so a model without tools may not be there"
        )
    unable = Ollama(ollama.url, WITHOUT_TOOLS, tiny=True)
    found = doctor(tmp_path, models(unable))
    assert "answers, and refuses requests with tools, but has `rag`" in said(found, "model chat", "warn")
    assert "cannot call tools -> Take a model that can." in said(found, "ollama", "warn")
    assert "answers, and refuses requests with tools" in said(found, "model plain", "ok")
