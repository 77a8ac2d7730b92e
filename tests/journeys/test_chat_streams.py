"""What becomes of a chat when the client, or the model's server, goes away in the middle of it."""

from __future__ import annotations

import http.client
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.proxy import MASTER_KEY, Proxy, proxy
from tests.support.scripted_upstream import KEY, ScriptedUpstream, scripted_upstream

SEARCH = {"name": "search_documents", "arguments": {"query": "notice"}}
WAIT_S = 20.0


def configuration(url: str) -> dict[str, Any]:
    names = {"chat": "primary", "spare": "secondary", "alone": "lonely"}
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{served_by}",
                    "api_base": url,
                    "api_key": KEY,
                    "num_retries": 0,
                },
                "model_info": {"mode": "chat", "rag": True},
            }
            for name, served_by in names.items()
        ],
        "router_settings": {"disable_cooldowns": True, "fallbacks": [{"chat": ["spare"]}]},
        "litellm_settings": {
            "callbacks": ["tests.support.chat_entry.hooks", "tests.support.chat_entry.spend"],
            "sse_keepalive_ping_interval_seconds": 0.2,
        },
        # With guardrails LiteLLM puts its log off until they have seen the answer.
        "guardrails": [
            {
                "guardrail_name": "block",
                "litellm_params": {
                    "guardrail": "tests.support.chat_entry.BlockSecret",
                    "mode": "post_call",
                    "default_on": True,
                },
            }
        ],
        "general_settings": {
            "master_key": MASTER_KEY,
            "custom_auth": "tests.support.chat_entry.authenticate",
            "custom_auth_run_common_checks": True,
            "cancel_on_disconnect": True,
        },
    }


@dataclass(frozen=True)
class Stage:
    proxy: Proxy
    upstream: ScriptedUpstream
    folder: Path

    def request(
        self, rounds: Any, user: str, model: str = "chat", request_id: str = "", **options: Any
    ) -> http.client.HTTPConnection:
        """A question on its way, whose answer nobody has read yet."""
        address = urlsplit(self.proxy.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=WAIT_S)
        body = {
            "model": model,
            "messages": [{"role": "user", "content": json.dumps(rounds)}],
            **options,
        }
        headers = {
            "Authorization": f"Bearer sk-{user}",
            "Content-Type": "application/json",
            "x-litellm-call-id": request_id or uuid.uuid4().hex,
        }
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        return connection

    def ask(self, rounds: Any, user: str = "alice", model: str = "chat", **options: Any) -> tuple[int, str]:
        connection = self.request(rounds, user, model, **options)
        try:
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def paid(self, user: str) -> list[dict[str, Any]]:
        """What was logged for the user, up to now."""
        log = self.folder / "spend.log"
        lines = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
        return [line for line in lines if line["user"] == f"local/{user}"]

    def tasks(self) -> list[str]:
        found: list[str] = httpx.get(f"{self.proxy.url}/test/tasks", timeout=WAIT_S, trust_env=False).json()
        return found


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("streams")
    with scripted_upstream() as served:
        environment = {"SPEND_LOG": str(folder / "spend.log")}
        with proxy(folder, configuration(served.url), {}, environment) as running:
            yield Stage(running, served, folder)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def a_user() -> str:
    return f"single{uuid.uuid4().hex[:8]}"


def data_of(stream: str) -> list[Any]:
    """The events of a stream, each of which must be JSON."""
    assert stream.endswith("\n\n")
    events = [event for event in stream.split("\n\n") if event and not event.startswith(":")]
    assert all(event.startswith("data: ") and "\n" not in event for event in events), stream
    return [event if event == "data: [DONE]" else json.loads(event[6:]) for event in events]


def text_of(events: list[Any]) -> str:
    choices = [event["choices"][0] for event in events if isinstance(event, dict) and event.get("choices")]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def settled(stage: Stage, user: str, before: int) -> list[dict[str, Any]]:
    """All that the user has been charged, once the next question, which LiteLLM must let in, is logged."""
    until(lambda: stage.ask([{"text": ["hello"]}], user)[0] == 200)
    until(lambda: len(stage.paid(user)) > before)
    paid = stage.paid(user)
    paid.remove(next(line for line in reversed(paid) if line["tokens"] == 13))
    return paid


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("late", [False, True], ids=["first-round", "later-round"])
def test_a_client_that_goes_away_ends_the_models_round(stage: Stage, stream: bool, late: bool) -> None:
    user = a_user()
    # silent for a while before it hangs: by then the proxy has read what was said
    last = {"text": [f"thinking of {user} ", "wait:0.5", "hang"]}
    rounds = [*([{"calls": [SEARCH]}] if late else []), last]
    connection = stage.request(rounds, user, stream=stream)
    until(lambda: [asked for asked in stage.upstream.of(user) if asked.hanging.is_set()])
    connection.close()
    hanging = stage.upstream.of(user)[-1]
    assert hanging.left.wait(WAIT_S)
    until(lambda: not stage.tasks())
    # A plain first round that is cancelled has brought nothing that could be counted.
    whole, part = ([13] if late else []), (1 if late or stream else 0)
    paid = settled(stage, user, len(whole) + part)
    assert len(paid) == len(whole) + part
    assert [line["tokens"] for line in paid if line["tokens"] == 13] == whole
    assert all(line["completion"] > 0 for line in paid)
    assert len(stage.upstream.of(user)) == len(rounds), "nobody asks again for a client that is gone"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_client_that_goes_away_ends_the_tool(stage: Stage, stream: bool, tmp_path: Path) -> None:
    user, gate = a_user(), tmp_path / "gate"
    call = {"name": "search_documents", "arguments": {"query": f"pause:{gate}"}}
    connection = stage.request([{"text": [user], "calls": [call]}, {"text": ["never"]}], user, stream=stream)
    until(lambda: stage.upstream.of(user) and stage.tasks())
    connection.close()
    until(Path(f"{gate}.cancelled").exists)
    until(lambda: not stage.tasks())
    assert [line["tokens"] for line in settled(stage, user, 1)] == [13]
    assert len(stage.upstream.of(user)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_client_that_goes_away_ends_the_search_before_the_model(
    stage: Stage, stream: bool, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    messages = [{"role": "user", "content": f"pause:{gate}"}]
    asked: dict[str, Any] = {"messages": messages, "rag": {"mode": "context"}}
    connection = stage.request(None, "alice", stream=stream, **asked)
    until(stage.tasks)
    connection.close()
    until(Path(f"{gate}.cancelled").exists)
    until(lambda: not stage.tasks())
    assert not [each for each in stage.upstream.asked if str(gate) in json.dumps(each.messages)]


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_streams_that_are_cut_leave_nothing_open(stage: Stage) -> None:
    def cut(count: int) -> None:
        marker = uuid.uuid4().hex
        rounds = [{"calls": [SEARCH]}, {"text": [f"thinking of {marker} ", "wait:0.5", "hang"]}]
        connections = [stage.request(rounds, "alice", stream=True) for _ in range(count)]
        until(lambda: sum(asked.hanging.is_set() for asked in stage.upstream.of(marker)) == count)
        for connection in connections:
            connection.close()
        for asked in stage.upstream.of(marker):
            if asked.hanging.is_set():
                assert asked.left.wait(WAIT_S)
        until(lambda: not stage.tasks())

    def descriptors() -> int:
        return len(list(Path(f"/proc/{stage.proxy.process.pid}/fd").iterdir()))

    cut(20)  # pools of connections fill
    before = descriptors()
    for _ in range(3):
        cut(20)
    until(lambda: descriptors() <= before)


@pytest.mark.parametrize("late", [False, True], ids=["first-round", "later-round"])
def test_a_model_that_dies_in_mid_stream_is_an_error_object_and_the_end(stage: Stage, late: bool) -> None:
    user = a_user()
    rounds = [*([{"calls": [SEARCH]}] if late else []), {"text": [f"begun {user}", "wait:0.5", "die"]}]
    status, answer = stage.ask(rounds, user, stream=True)
    events = data_of(answer)
    assert status == 200
    assert text_of(events) == f"begun {user}"
    assert set(events[-1]) == {"error"}
    assert {"message", "type", "param", "code"} <= set(events[-1]["error"])
    assert_says_nothing_internal(answer)
    assert len(stage.upstream.of(user)) == len(rounds), "what the client has seen is not said again"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("how", ["down", "cut"])
def test_a_model_that_stays_away_is_an_error_that_names_nothing_internal(
    stage: Stage, how: str, stream: bool
) -> None:
    for rounds in ([{how: ["lonely"]}], [{"calls": [SEARCH]}, {how: ["lonely"]}]):
        status, answer = stage.ask(rounds, a_user(), model="alone", stream=stream)
        event = json.loads(answer) if status >= 500 else data_of(answer.removesuffix("data: [DONE]\n\n"))[-1]
        error = event["error"]
        assert status >= 500 or stream
        assert error["message"]
        assert_says_nothing_internal(answer)


def assert_says_nothing_internal(answer: str) -> None:
    for secret in (KEY, "127.0.0.1", "/srv/", "Traceback", "site-packages"):
        assert secret not in answer


def test_the_log_has_the_cause_of_a_broken_round_with_the_requests_id(stage: Stage) -> None:
    identifier = uuid.uuid4().hex
    rounds = [{"calls": [SEARCH]}, {"text": ["begun", "wait:0.5", "die"]}]
    _, answer = stage.ask(rounds, stream=True, request_id=identifier)
    assert "The model did not answer" in data_of(answer)[-1]["error"]["message"]
    lines = stage.proxy.log.splitlines()
    number = next(n for n, line in enumerate(lines) if f"request_id={identifier}" in line)
    assert "user_id=local/alice" in lines[number]
    assert any("TransferEncodingError" in line for line in lines[number:]), "the cause"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("how", ["down", "cut"])
@pytest.mark.parametrize("broken", [0, 1], ids=["first-round", "later-round"])
@pytest.mark.parametrize("asked", ["router", "request"])
def test_a_fallback_takes_over_in_any_round_and_stays(
    stage: Stage, asked: str, broken: int, how: str, stream: bool
) -> None:
    model, own = ("chat", "primary") if asked == "router" else ("alone", "lonely")
    rounds: list[dict[str, Any]] = [{"calls": [SEARCH]}, {"calls": [SEARCH]}, {"text": ["the end"]}]
    rounds[broken][how] = [own]
    user = a_user()
    rounds[0]["id"] = user
    options = {"fallbacks": ["spare"]} if asked == "request" else {}
    status, answer = stage.ask(rounds, user, model=model, stream=stream, **options)
    assert status == 200, answer
    said = text_of(data_of(answer)) if stream else json.loads(answer)["choices"][0]["message"]["content"]
    assert said == "the end"
    seen = list(dict.fromkeys((each.round, each.model) for each in stage.upstream.of(user)))
    before = [(number, own) for number in range(broken + 1)]
    assert seen == [*before, *((number, "secondary") for number in range(broken, 3))]


def test_an_answer_that_began_with_silence_gives_its_parallel_request_back(stage: Stage) -> None:
    user = a_user()
    for _ in range(2):
        until(lambda: stage.ask([{"text": ["wait:0.7", "hello"]}], user, stream=True)[0] == 200)


def test_silence_is_bridged_by_comments_in_every_part_of_an_answer(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    call = {"name": "search_documents", "arguments": {"query": f"pause:{gate}"}}
    rounds = [{"text": ["wait:0.7", "one ", "wait:0.7"], "calls": [call]}, {"text": ["wait:0.7", "two"]}]
    connection = stage.request(rounds, "alice", stream=True)
    response = connection.getresponse()
    pings, seen = [0], b""
    while line := response.readline():
        if line.startswith(b": ping"):
            pings[-1] += 1
            if len(pings) == 2 and pings[-1] > 6:  # the rest of the first round's silence, then the tool's
                gate.touch()
        elif b'"content"' in line:
            pings.append(0)
        seen += line
    connection.close()
    assert text_of(data_of(seen.decode())).split() == ["one", "two"]
    assert len(pings) == 3
    assert pings[0]
    assert pings[1] > 6
