"""Answers from documents by a model of a real Ollama, through the stock proxy, and what the doctor says.

Of a model that is not ours only that is asked which any model does: it may decide to search for nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.ollama import EMBEDDER, WITHOUT_TOOLS, Ollama, ollama
from tests.live.relay import relay
from tests.live.tiny_ollama.model import CITED, GREETING, NOTHING
from tests.support.library import CODE, DEADLINE_S, QUESTION, Library, library, litellm_config, our_config
from tests.support.proxy import free_port, variables, write

__all__ = ["ollama"]

DOCTOR_S = 240
LINE_S = 2.0
"""How long the model behind a line that stalls is waited for."""


@dataclass
class House:
    library: Library
    ollama: Ollama

    def http(self, person: str) -> httpx.Client:
        return self.library.http(person)

    def ask(self, person: str, model: str = "chat") -> Any:
        return self.library.ask(person, model)

    def post(self, model: str, *, stream: bool = False) -> httpx.Response:
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": QUESTION}]}
        with self.http("alice") as http:
            return http.post("/v1/chat/completions", json=body)

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


def chat(name: str, model: str, address: str, *, rag: bool = True, **params: Any) -> dict[str, Any]:
    base = {"model": f"ollama_chat/{model}", "api_base": address, "num_ctx": 8192, "num_retries": 0}
    info = {"mode": "chat", **({"rag": True} if rag else {})}
    return {
        "model_name": name,
        "litellm_params": {**base, "timeout": DEADLINE_S, **params},
        "model_info": info,
    }


def models(server: Ollama, *more: dict[str, Any]) -> dict[str, Any]:
    """LiteLLM's configuration: `chat` has our tools, `plain` is the same model without them."""
    known = [chat("chat", server.model, server.url), chat("plain", server.model, server.url, rag=False)]
    return litellm_config([*known, *more])


@pytest.fixture(scope="module")
def house(ollama: Ollama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The proxy with one document of alice's; some of its models are at the end of a bad line."""
    with ExitStack() as stack:
        stalls = stack.enter_context(relay(ollama.url, "stalls"))
        breaks_off = stack.enter_context(relay(ollama.url, "breaks off"))
        embedder = {"model": f"ollama/{EMBEDDER}", "api_base": ollama.url, "drop_params": True}
        config = models(
            ollama,
            chat("down", ollama.model, f"http://127.0.0.1:{free_port()}"),
            chat("stalls", ollama.model, stalls, timeout=LINE_S, stream_timeout=LINE_S),
            chat("breaks off", ollama.model, breaks_off, rag=False),
            chat("unknown", "not-a-model-of-anybody", ollama.url),
            chat("unable", WITHOUT_TOOLS, ollama.url),
            {"model_name": "embed", "litellm_params": embedder, "model_info": {"mode": "embedding"}},
        )
        running = stack.enter_context(library(tmp_path_factory.mktemp("house"), config))
        yield House(running, ollama)


def doctor(folder: Path, litellm: Mapping[str, Any]) -> dict[str, Any]:
    """What it finds, of the configuration in this folder."""
    config = write(folder, litellm, our_config(folder, free_port()))
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


def test_a_call_of_the_clients_own_tool_is_handed_back(house: House) -> None:
    if not house.ollama.tiny:
        pytest.skip("a model that is not ours may answer without its tool")
    function = {"name": "search_documents", "parameters": {"type": "object", "properties": {}}}
    asked = {"tools": [{"type": "function", "function": function}]}
    plain = house.library.ask("alice", "plain", **asked).choices[0]
    assert (plain.finish_reason, plain.message.content or "") == ("tool_calls", "")
    chunks = house.library.ask("alice", "plain", **asked, stream=True)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    calls = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["tool_calls"]
    for call in (plain.message.tool_calls[0], calls[0]):
        assert call.id
        assert call.function.name == "search_documents"
        assert json.loads(call.function.arguments) == {"query": "notice period"}


def test_embeddings_are_the_models_own(house: House) -> None:
    if not house.ollama.tiny:
        pytest.skip("nothing is made on a server of OLLAMA_BASE_URL")
    texts = ["What is the notice period?", "The notice period is thirty days.", "Lunch is at noon."]
    with house.http("alice") as http:
        answer = http.post("/v1/embeddings", json={"model": "embed", "input": texts})
    vectors = [found["embedding"] for found in answer.json()["data"]]
    assert [len(vector) for vector in vectors] == [64] * 3
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > far


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("model", "statuses"), [("down", {500, 503}), ("stalls", {408, 504}), ("unknown", {404})]
)
def test_a_server_that_fails_before_the_first_word_is_an_error_in_openais_form(
    house: House, model: str, statuses: set[int], stream: bool
) -> None:
    answer = house.post(model, stream=stream)
    assert answer.status_code in statuses, answer.text
    assert set(answer.json()["error"]) >= {"message", "type", "code"}


def test_a_stream_that_breaks_off_ends_in_an_error_and_not_in_done(house: House) -> None:
    if not house.ollama.tiny:
        pytest.skip("how much of it comes before the line breaks is known of our model only")
    answer = house.post("breaks off", stream=True)
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    if not lines:  # LiteLLM saw the line break before it read what had come
        assert answer.status_code == 500
        assert set(answer.json()["error"]) >= {"message", "type", "code"}
        return
    assert "[DONE]" not in lines
    *chunks, last = (json.loads(line) for line in lines)
    assert set(last["error"]) >= {"message", "code"}
    said = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(GREETING[:2]).startswith("".join(filter(None, said)))


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
