"""Chat through the real proxy as a process, with the OpenAI SDK and a model that does as it is told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.proxy import MASTER_KEY, Proxy, proxy

SEARCH = {"name": "search_documents", "arguments": {"query": "notice"}}
WAIT_S = 20.0


def model(name: str, served_by: str, **info: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"model": served_by}
    if served_by.startswith("ollama"):
        params |= {"api_base": "http://127.0.0.1:9", "num_retries": 0}  # the discard port: nobody listens
    return {"model_name": name, "litellm_params": params, "model_info": {"mode": "chat", **info}}


CONFIG = {
    "model_list": [
        model("scripted", "scripted/one", rag=True),
        model("plain", "scripted/two"),
        model("extractive", "local/extractive", rag=True),
        model("chat", "ollama_chat/none", rag=True),
    ],
    "router_settings": {"disable_cooldowns": True, "fallbacks": [{"chat": ["extractive"]}]},
    "litellm_settings": {
        "callbacks": ["tests.support.chat_entry.hooks", "tests.support.chat_entry.spend"],
        # With pings LiteLLM runs each step of our generator in a task of its own.
        "sse_keepalive_ping_interval_seconds": 1,
    },
    "general_settings": {
        "master_key": MASTER_KEY,
        "custom_auth": "tests.support.chat_entry.authenticate",
        "custom_auth_run_common_checks": True,
    },
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
}


@dataclass(frozen=True)
class Chat:
    client: openai.OpenAI
    folder: Path
    proxy: Proxy

    def ask(self, question: Any, name: str = "scripted", **options: Any) -> Any:
        content = question if isinstance(question, str) else json.dumps(question)
        messages: Any = [{"role": "user", "content": content}]
        return self.client.chat.completions.create(model=name, messages=messages, **options)

    def upstream(self) -> dict[str, Any]:
        """What the model got last."""
        seen: dict[str, Any] = json.loads((self.folder / "seen.log").read_text().splitlines()[-1])
        return seen


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    folder = tmp_path_factory.mktemp("chat")
    environment = {"SCRIPTED_LOG": str(folder / "seen.log"), "SPEND_LOG": str(folder / "spend.log")}
    with proxy(folder, CONFIG, {}, environment) as running:
        client = openai.OpenAI(
            base_url=f"{running.url}/v1", api_key="sk-alice", max_retries=0, timeout=WAIT_S
        )
        with client:
            yield Chat(client, folder, running)


def until(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_plain_and_a_streamed_question_get_the_same_cited_answer(chat: Chat) -> None:
    question = "How many days of notice are there?"
    plain = chat.ask(question, "extractive").choices[0].message
    assert plain.content == "The notice period is 30 days. [1]"
    cited = plain.annotations[0].url_citation
    assert plain.content[cited.start_index : cited.end_index] == "[1]"
    assert cited.url == "https://proxy.example/v1/collections/vs_1/documents/doc_1/content#page=3"
    chunks = list(chat.ask(question, "extractive", stream=True, stream_options={"include_usage": True}))
    assert text_of(chunks) == plain.content
    assert len({(chunk.id, chunk.model) for chunk in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        "stop"
    ]
    assert [chunk.usage.total_tokens > 0 for chunk in chunks if chunk.usage] == [True]
    assert not any(chunk.usage for chunk in chat.ask(question, "extractive", stream=True))


def test_the_first_token_arrives_before_the_model_has_spoken_the_last(chat: Chat, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    rounds = [{"calls": [SEARCH]}, {"text": ["first", f"pause:{gate}", " last"]}]
    chunks = chat.ask(rounds, stream=True)
    assert next(chunks).choices[0].delta.content == "first"
    gate.touch()
    assert text_of(list(chunks)) == " last"


def test_a_client_that_goes_away_ends_the_model(chat: Chat, tmp_path: Path) -> None:
    cancelled = chat.folder / "seen.log.cancelled"
    assert not cancelled.exists()
    rounds = [{"calls": [SEARCH]}, {"text": ["first", f"pause:{tmp_path / 'never'}"]}]
    chunks = chat.ask(rounds, stream=True)
    next(chunks)
    chunks.close()
    until(cancelled.exists)


def test_every_round_is_logged_under_the_same_user(chat: Chat) -> None:
    log = chat.folder / "spend.log"
    dora = Chat(chat.client.with_options(api_key="sk-dora"), chat.folder, chat.proxy)
    answer = dora.ask([{"calls": [SEARCH]}, {"calls": [SEARCH]}, {"text": ["done"]}])
    assert answer.usage.total_tokens == 3 * 13
    until(lambda: log.read_text().count("local/dora") == 3)


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_says_which_model_a_fallback_chose(chat: Chat, stream: bool) -> None:
    answer = chat.ask("How many days of notice are there?", "chat", stream=stream)
    assert {chunk.model for chunk in answer} == {"extractive"} if stream else answer.model == "extractive"


def test_a_blocking_guardrail_sees_the_final_answer(chat: Chat) -> None:
    rounds = [{"calls": [SEARCH]}, {"text": ["the SECRET"]}]
    with pytest.raises(openai.BadRequestError, match="blocked by guardrail"):
        chat.ask(rounds)
    with pytest.raises(openai.APIError, match="blocked by guardrail"):
        list(chat.ask(rounds, stream=True))
    headers = {"X-OpenWebUI-User-Id": "u"}
    rounds[1] = {"text": ["It is 30 [", "1]."]}
    chunks = list(chat.ask(rounds, stream=True, extra_headers=headers))
    events = [chunk.event["type"] for chunk in chunks if getattr(chunk, "event", None)]
    assert events == ["status", "status", "source"], "the guardrail must also bear our events"


def test_an_error_in_a_later_round_is_an_openai_error_that_names_nothing_internal(chat: Chat) -> None:
    rounds = [{"calls": [SEARCH]}, {"text": ["begun", "fail"]}]
    with pytest.raises(openai.InternalServerError) as plain:
        chat.ask(rounds)
    assert (plain.value.status_code, plain.value.code) == (503, "model_unavailable")
    with pytest.raises(openai.APIError, match="The model did not answer") as streamed:
        list(chat.ask(rounds, stream=True))
    assert "10.1.2.3" not in plain.value.response.text + str(streamed.value.body)


def test_a_request_that_asks_for_nothing_reaches_the_model_as_it_was_sent(chat: Chat) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    rounds = [{"text": ["hi"]}]
    assert chat.ask(rounds, "plain", tools=[tool], temperature=0.5).choices[0].message.content == "hi"
    seen = chat.upstream()
    assert seen["messages"] == [{"role": "user", "content": json.dumps(rounds)}]
    assert {key: seen["params"][key] for key in ("tools", "temperature")} == {
        "tools": [tool],
        "temperature": 0.5,
    }


def test_openai_file_search_narrows_to_the_named_collections(chat: Chat) -> None:
    tool = {"type": "file_search", "vector_store_ids": ["finance"]}
    answer = chat.ask([{"calls": [SEARCH]}, {"text": ["14.2 [", "1]"]}], "plain", tools=[tool])
    assert answer.choices[0].message.annotations[0].url_citation.title == "Report > Revenue (page 7)"
    bob = chat.client.with_options(api_key="sk-bob")
    with pytest.raises(openai.PermissionDeniedError, match="query"):
        Chat(bob, chat.folder, chat.proxy).ask("x", "plain", tools=[tool])
    with pytest.raises(openai.NotFoundError):
        chat.ask("x", "plain", extra_body={"rag": {"collections": ["nowhere"]}})


def test_the_clients_own_tool_call_is_handed_back(chat: Chat) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    rounds = [{"calls": [SEARCH]}, {"calls": [{"name": "weather", "arguments": {"city": "Bonn"}}]}]
    choice = chat.ask(rounds, tools=[tool]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [call.function.name for call in choice.message.tool_calls] == ["weather"]


def test_neither_token_nor_document_text_is_in_the_log(chat: Chat) -> None:
    chat.ask("How many days of notice are there?", "extractive")
    assert "notice period is 30 days" not in chat.proxy.log
    assert "sk-alice" not in chat.proxy.log
