"""Servers other than Ollama, as litellm_config.yaml shows them, and fallbacks between them in every round.

The server is a stand-in on loopback that speaks OpenAI's API; proxy, documents and search are real.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.support.library import CODE, QUESTION, Library, library, litellm_config
from tests.support.proxy import ROOT, free_port
from tests.support.upstream import ANSWER, SECRET, Upstream, upstream

SHOWN = ("llama-cpp", "vllm", "compatible", "external")
KEYS = {"COMPATIBLE_API_KEY": "sk-compatible", "OPENAI_API_KEY": "sk-openai"}


@dataclass
class House:
    library: Library
    upstream: Upstream

    def models(self) -> list[tuple[str, int]]:
        return self.upstream.models()


def shown(address: str) -> list[dict[str, Any]]:
    """The models that are commented out in litellm_config.yaml, at this address."""
    content = (ROOT / "litellm_config.yaml").read_text(encoding="utf-8")
    lines = re.findall(r"^  # ((?:- model_name|  ).*)$", content, re.MULTILINE)
    models: list[dict[str, Any]] = yaml.safe_load("\n".join(lines))
    for model in models:
        model["litellm_params"]["api_base"] = address
    return models


def model(name: str, address: str, **params: Any) -> dict[str, Any]:
    litellm_params = {
        "model": f"openai/{name}",
        "api_base": address,
        "api_key": "x",
        "num_retries": 0,
        **params,
    }
    return {"model_name": name, "litellm_params": litellm_params, "model_info": {"mode": "chat", "rag": True}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with upstream() as server:
        nobody = f"http://127.0.0.1:{free_port()}/v1"
        models = [
            *shown(server.url),
            *(model(name, server.url) for name in ("first", "second", "alone")),
            model("stubborn", server.url, num_retries=1),
            model("down", nobody),
        ]
        fallbacks = [{"first": ["second"]}, {"down": ["first"]}]
        config = litellm_config(models, fallbacks=fallbacks)
        folder = tmp_path_factory.mktemp("upstreams")
        with library(folder, config, environment=KEYS) as running:
            yield House(running, server)


@pytest.fixture
def house(made: House) -> House:
    made.upstream.reset()
    return made


def streamed(house: House, name: str) -> tuple[str, list[dict[str, Any]]]:
    """The text of an answer that came to its end, and its chunks."""
    chunks = raw(house, name)
    assert chunks.pop() == "[DONE]"
    assert not [chunk for chunk in chunks if "error" in chunk], chunks
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert not [delta for delta in deltas if delta.get("tool_calls")]
    return "".join(delta.get("content") or "" for delta in deltas), chunks


def raw(house: House, name: str) -> list[Any]:
    body = {"model": name, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    with house.library.http("alice") as http:
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def asked(house: House, name: str, *, stream: bool) -> str:
    """The answer, which cites the document."""
    if stream:
        text, chunks = streamed(house, name)
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        [found] = [delta for delta in deltas if delta.get("annotations")]
        assert len({chunk["id"] for chunk in chunks}) == 1
        passages = found["provider_specific_fields"]["search_results"]
    else:
        message = house.library.ask("alice", name).choices[0].message
        text, passages = message.content, message.provider_specific_fields["search_results"]
    assert [CODE in passage["text"] for passage in passages] == [True]
    return text


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", SHOWN)
def test_each_server_that_the_configuration_shows_answers_from_documents(
    house: House, name: str, stream: bool
) -> None:
    assert asked(house, name, stream=stream) == "".join(ANSWER)
    assert [number for _, number in house.models()] == [0, 1]
    bearers = {one.bearer for one in house.upstream.asked}
    assert len(bearers) == 1
    if name in ("compatible", "external"):
        assert bearers <= {f"Bearer {value}" for value in KEYS.values()}


def test_the_configuration_shows_them_all() -> None:
    assert tuple(one["model_name"] for one in shown("http://x/v1")) == SHOWN
    assert all(one["model_info"] == {"mode": "chat", "rag": True} for one in shown("http://x/v1"))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("name", "failures", "expected"),
    [
        ("first", {("first", 0): ["error"]}, [("first", 0), ("second", 0), ("second", 1)]),
        ("first", {("first", 1): ["error"]}, [("first", 0), ("first", 1), ("second", 1)]),
        ("first", {("first", 1): ["busy"]}, [("first", 0), ("first", 1), ("second", 1)]),
        ("down", {}, [("first", 0), ("first", 1)]),
        ("stubborn", {("stubborn", 1): ["error"]}, [("stubborn", 0), ("stubborn", 1), ("stubborn", 1)]),
    ],
    ids=[
        "in the first round",
        "in a later round",
        "busy in a later round",
        "down",
        "retried in a later round",
    ],
)
def test_the_router_helps_itself_in_every_round(
    house: House, name: str, failures: Any, expected: list[tuple[str, int]], stream: bool
) -> None:
    house.upstream.failures |= {where: list(kinds) for where, kinds in failures.items()}
    assert asked(house, name, stream=stream) == "".join(ANSWER)
    assert house.models() == expected


@pytest.mark.parametrize("number", [0, 1], ids=["in the first round", "in a later round"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_without_one_that_could_take_over_an_error_comes_instead_of_an_answer(
    house: House, number: int, stream: bool
) -> None:
    house.upstream.failures["alone", number] = ["error"] * 5
    body = {"model": "alone", "stream": stream, "messages": [{"role": "user", "content": QUESTION}]}
    with house.library.http("alice") as http:
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code >= 500
    assert set(answer.json()["error"]) >= {"message", "type", "code"}
    assert SECRET not in answer.text
    assert house.models() == [("alone", 0), ("alone", 1)][: number + 1]


def test_another_takes_over_from_a_stream_that_breaks_off_before_a_word(house: House) -> None:
    house.upstream.failures["first", 0] = ["empty"]
    assert asked(house, "first", stream=True) == "".join(ANSWER)
    assert house.models()[:2] == [("first", 0), ("second", 0)]


def test_an_answer_that_breaks_off_ends_in_an_error(house: House) -> None:
    house.upstream.failures["alone", 1] = ["cut"]
    *chunks, last = raw(house, "alone")
    assert set(last["error"]) >= {"message", "type", "code"}
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == ANSWER[0]
    assert not [choice for choice in choices if choice.get("finish_reason")]


def test_what_a_fallback_said_is_said_to_be_its_own(house: House) -> None:
    house.upstream.failures["first", 0] = ["error"]
    assert house.library.ask("alice", "first").model.endswith("second")
