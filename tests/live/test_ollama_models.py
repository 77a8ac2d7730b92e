"""`/v1/ollama/models` at a real Ollama, with a real pull from a registry on loopback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.live.ollama import EMBEDDER, MODEL, Ollama, create, ollama
from tests.live.registry import Registry, registry
from tests.live.test_ollama import models
from tests.live.tiny_ollama import embedder
from tests.support.library import Library, library
from tests.support.quickstart import until

__all__ = ["ollama"]

PATH = "/v1/ollama/models"
PULLED = "pulled"
SEED = 8
"""Of weights that are not yet there."""


@dataclass
class House:
    library: Library
    ollama: Ollama
    registry: Registry

    @property
    def name(self) -> str:
        """Of the model that the registry has."""
        return f"{self.registry.host}/library/{PULLED}:latest"

    def ask(self, method: str, path: str = PATH, body: Any = None, person: str = "alice") -> httpx.Response:
        with self.library.http(person) as http:
            return http.request(method, path, json=body)

    def names(self) -> set[str]:
        return {model["name"] for model in self.ask("GET").json()["models"]}


@pytest.fixture(scope="module")
def house(ollama: Ollama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """alice manages an Ollama that has all its models but one, which the registry has."""
    if ollama.models is None:
        pytest.skip("nothing is pulled to or deleted from a server of OLLAMA_BASE_URL")
    copied = tmp_path_factory.mktemp("registry") / "models"
    with httpx.Client(base_url=ollama.url, trust_env=False) as client:
        create(client, PULLED, embedder.gguf(SEED))
        shutil.copytree(ollama.models, copied)
        client.request("DELETE", "/api/delete", json={"model": PULLED}).raise_for_status()
    with ExitStack() as stack:
        here = stack.enter_context(registry(copied))
        managed = {
            "base_url": ollama.url,
            "managers": ["user:local/alice"],
            "insecure_registries": [here.host],
        }
        extra = {"ollama": {"ollama": managed}, "audit": {"audit": {"readers": ["user:local/alice"]}}}
        running = stack.enter_context(library(tmp_path_factory.mktemp("house"), models(ollama), extra))
        yield House(running, ollama, here)


@pytest.fixture(autouse=True)
def whole_blobs(house: House) -> None:
    house.registry.go_on.set()
    house.registry.left.clear()


def test_the_list_is_ollamas(house: House) -> None:
    found = house.ask("GET").json()["models"]
    assert {f"{MODEL}:latest", f"{EMBEDDER}:latest"} <= {model["name"] for model in found}
    assert {"name", "model", "size", "digest", "details", "modified_at"} <= set(found[0])


def test_a_model_that_answered_is_among_the_loaded_ones(house: House) -> None:
    house.library.ask("alice", "plain")
    [loaded] = [
        model
        for model in house.ask("GET", f"{PATH}?loaded=true").json()["models"]
        if model["name"] == f"{MODEL}:latest"
    ]
    assert {"expires_at", "size_vram"} <= set(loaded)


def test_a_model_is_shown_with_what_it_can(house: House) -> None:
    assert house.ask("GET", f"{PATH}/{MODEL}").json()["capabilities"] == ["completion", "tools"]
    assert house.ask("GET", f"{PATH}/nobody").status_code == 404


def test_a_pulled_model_is_there_is_shown_and_is_deleted_again(house: House) -> None:
    assert house.name not in house.names()
    answer = house.ask("POST", PATH, {"model": house.name})
    assert answer.status_code == 200, answer.text
    *told, last = [part.removeprefix("data: ") for part in answer.text.strip().split("\n\n")]
    assert last == "[DONE]"
    objects = [json.loads(line) for line in told]
    assert objects[0] == {"status": "pulling manifest"}
    assert objects[-1] == {"status": "success"}
    assert len(told) == len(set(told)), "each once"
    assert [found for found in objects if found.get("total") and found.get("completed") == found["total"]]
    assert house.name in house.names()
    assert house.ask("GET", f"{PATH}/{house.name}").json()["details"]["family"] == "bert"
    assert house.ask("DELETE", f"{PATH}/{house.name}").status_code == 204
    assert house.name not in house.names()
    assert house.ask("DELETE", f"{PATH}/{house.name}").status_code == 404


def test_a_plain_pull_answers_when_the_model_is_there(house: House) -> None:
    answer = house.ask("POST", PATH, {"model": house.name, "stream": False})
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
    assert house.name in house.names()
    assert house.ask("DELETE", f"{PATH}/{house.name}").status_code == 204


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_the_registry_does_not_have_is_404(house: House, stream: bool) -> None:
    name = f"{house.registry.host}/library/nobody:latest"
    answer = house.ask("POST", PATH, {"model": name, "stream": stream})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_the_pull(house: House, stream: bool) -> None:
    house.registry.go_on.clear()
    body = {"model": house.name, "stream": stream}
    with house.library.http("alice") as http:
        try:
            with http.stream("POST", PATH, json=body, timeout=1.0 if not stream else 30.0) as answer:
                for line in answer.iter_lines():
                    if '"completed"' in line or '"total"' in line:
                        break
        except httpx.ReadTimeout:
            assert not stream, "a plain pull says nothing before its end"
    until(house.registry.left.is_set, "Ollama no longer reads from the registry")
    assert house.name not in house.names()


def test_who_is_no_manager_sees_and_changes_nothing(house: House) -> None:
    for method, path in (("GET", PATH), ("GET", f"{PATH}/{MODEL}"), ("DELETE", f"{PATH}/{MODEL}")):
        assert house.ask(method, path, person="bob").status_code == 403
    assert house.ask("POST", PATH, {"model": house.name}, "bob").status_code == 403
    assert f"{MODEL}:latest" in house.names()


def test_what_was_pulled_and_deleted_is_in_the_audit_log(house: House) -> None:
    found = house.ask("GET", "/v1/audit?result=allowed&limit=1000").json()["data"]
    actions = {entry["action"] for entry in found if entry["detail"].get("model") == house.name}
    assert actions == {"ollama.pull", "ollama.delete"}
