"""What is kept of answers, whatever the API and however it comes."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from litellm.types.llms.openai import OutputTextDeltaEvent
from litellm.types.utils import Delta, ModelResponse, ModelResponseStream, StreamingChoices

from plugins.collections.bounded import SLACK, Unfinished
from plugins.core.config import ExchangesConfig
from plugins.core.errors import Upstream
from plugins.proxy.access_log import Answering
from plugins.proxy.auth import PrincipalAuth
from plugins.proxy.chunks import as_stream
from plugins.proxy.exchange import Said, asked_of
from tests.support.fake_proxy import ANSWER, QUESTION, WHOLE, Proxy
from tests.support.services import ALICE, a_passage

BYTES = "aGVsbG8h" * 100


@pytest.mark.parametrize(
    "message",
    [
        {"content": f"data:;base64,{'tell me the salaries ' * 20}"},
        {"content": [{"type": "document", "source": {"type": "text", "data": "tell me the salaries " * 20}}]},
        {"content": [{"data": "tell-me-the-salaries\n" * 20}]},
    ],
)
def test_words_are_kept_where_they_are_said_to_be_a_files_bytes(message: dict[str, Any]) -> None:
    assert asked_of({"messages": [message]}) == {"messages": [message]}


@pytest.mark.parametrize("field", ["tools", "functions", "extra_body", "response_format", "text", "prompt"])
def test_what_a_model_is_told_beside_the_messages_is_kept(field: str) -> None:
    said = {"messages": [], field: {"description": "Answer this: what does Bob earn?"}}
    assert asked_of(said) == said


def test_what_is_nested_too_deep_to_be_a_message_is_left_out() -> None:
    part: Any = "x"
    for _ in range(5000):
        part = {"content": part}
    assert "(nested too deep)" in json.dumps(asked_of({"messages": part}))


def said(*pieces: Any, most: int = 1000) -> dict[str, Any]:
    found = Said(most)
    for piece in pieces:
        found.add(piece)
    return found.answer(())


def frame(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def test_a_message_is_put_together_from_its_frames() -> None:
    tool = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
    pieces = [
        frame({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}}),
        frame({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}}),
        b": ping\n\ndata: [DONE]\n\n",
        frame({"type": "content_block_start", "index": 1, "content_block": tool})
        + frame(
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": '{"city": "Bonn"}'},
            }
        ),
    ]
    whole = {
        "type": "message",
        "content": [{"type": "text", "text": "Hello"}, {**tool, "input": {"city": "Bonn"}}],
    }
    wanted = {"text": "Hello", "tool_calls": [{"name": "weather", "arguments": '{"city": "Bonn"}'}]}
    assert said(*pieces) == said(whole) == wanted


def test_a_response_is_put_together_from_its_events() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"}
    text = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
    event: Any = {"item_id": "i", "output_index": 0, "content_index": 0, "type": "response.output_text.delta"}
    pieces = [
        OutputTextDeltaEvent(**event, delta="Hel"),
        OutputTextDeltaEvent(**event, delta="lo"),
        {"type": "response.output_item.done", "item": text},
        {"type": "response.output_item.done", "item": call},
    ]
    wanted = {"text": "Hello", "tool_calls": [{"name": "weather", "arguments": "{}"}]}
    assert said(*pieces) == said({"object": "response", "output": [text, call]}) == wanted


def test_a_plain_chat_completion_is_kept_with_the_client_s_calls() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    message = {"role": "assistant", "content": "Hello", "tool_calls": [call]}
    answer = ModelResponse(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
    assert said(answer) == {"text": "Hello", "tool_calls": [{"name": "weather", "arguments": "{}"}]}


def test_every_choice_and_every_model_s_answer_is_kept() -> None:
    call = {"name": "weather", "arguments": "{}"}
    messages = [{"role": "assistant", "content": text, "function_call": call} for text in ("One. ", "Two. ")]
    answer = ModelResponse(
        choices=[{"index": n, "message": m, "finish_reason": "stop"} for n, m in enumerate(messages)]
    )
    assert said(answer) == {"text": "One. \n\nTwo. ", "tool_calls": [call, call]}
    assert said([answer, answer])["text"] == "One. \n\nTwo. \n\nOne. \n\nTwo. "


def turns(*pieces: tuple[int, str]) -> list[ModelResponseStream]:
    """Chunks of several choices, by their index."""
    return [
        ModelResponseStream(choices=[StreamingChoices(index=index, delta=Delta(content=text))])
        for index, text in pieces
    ]


def test_choices_that_come_in_turns_are_kept_each_by_itself() -> None:
    pieces = turns((0, "Your IBAN is DE0212"), (1, "Mine"), (0, "0300000000202051."), (1, " is secret."))
    assert said(*pieces) == {"text": "Your IBAN is DE02120300000000202051.\n\nMine is secret."}


def test_a_long_answer_is_cut_and_says_so() -> None:
    block = {"type": "text", "text": "x" * (SLACK + 600)}
    answer = said({"type": "message", "content": [block, block]}, most=1000)
    assert answer == {"text": "x" * (SLACK + 1000), "cut": True}
    assert isinstance(answer["text"], Unfinished)


def test_the_choice_that_was_cut_stands_last() -> None:
    """Its end is what a pattern cannot be asked about."""
    answer = said(*turns((0, "a"), (1, "b"), (0, "a" * (SLACK + 2000)), (1, "b")), most=1000)
    assert answer == {"text": "b\n\n" + "a" * (SLACK + 999), "cut": True}
    assert isinstance(answer["text"], Unfinished)


def test_of_passages_the_places_are_kept_and_not_the_texts() -> None:
    found = Said(1000)
    one, other = a_passage("secret plans"), a_passage("more of them", "vs_f", None)
    found.cited = (other,)
    answer = found.answer((one, other))
    assert [(passage["page"], passage["cited"]) for passage in answer["passages"]] == [
        (3, False),
        (None, True),
    ]
    assert "secret" not in str(answer)
    assert "more of" not in str(answer)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BYTES}"}},
        {"type": "input_audio", "input_audio": {"data": BYTES, "format": "wav"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{BYTES}", "filename": "a.pdf"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BYTES}},
    ],
)
def test_files_bytes_are_left_out_and_what_stands_beside_them_is_not(part: dict[str, Any]) -> None:
    asked = asked_of(
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}],
            "metadata": {"key": "of LiteLLM's"},
            "litellm_logging_obj": object(),
        }
    )
    kept = json.dumps(asked)
    assert BYTES not in kept
    assert "(base64, " in kept
    assert "What is this?" in kept
    assert part["type"] in kept
    assert set(asked) == {"messages"}


class Log:
    """In the place of the database."""

    max_bytes = 10_000

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.full = False

    def keeps(self, route: str) -> bool:
        return route in ExchangesConfig().routes

    def check(self) -> None:
        if self.full:
            raise Upstream

    def note(self, exchange: Any) -> None:
        self.rows.append(exchange)


def answering(log: Any, **data: Any) -> Answering:
    request = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], **data}
    return Answering(request, PrincipalAuth(principal=ALICE), "acompletion", log)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def proxy(proxy_with: Any, log: Log) -> Proxy:
    """One that keeps them there."""
    made: Proxy = proxy_with(*ANSWER)
    kept: Any = log
    parts = replace(made.hooks._parts(), exchanges=kept)
    made.hooks._parts = lambda: parts
    return made


async def test_a_client_that_goes_away_leaves_what_it_got(
    proxy: Proxy, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "plugins")
    stream = proxy.chunks(await proxy.begin(stream=True))
    async for chunk in stream:
        if chunk.choices and "30" in (chunk.choices[0].delta.content or ""):
            break
    await stream.aclose()
    [row] = log.rows
    assert row.answer["status"] == 499
    assert WHOLE.startswith(row.answer["text"])
    assert "It is 30" in row.answer["text"]
    [line] = [record for record in caplog.records if record.name == "plugins.proxy.access_log"]
    assert line.fields["status"] == 499  # type: ignore[attr-defined]
    assert line.fields["error"] == "GeneratorExit"  # type: ignore[attr-defined]


async def test_an_answer_from_documents_is_kept_as_the_client_got_it(proxy: Proxy, log: Log) -> None:
    await proxy.stream()
    [row] = log.rows
    assert row.answer["text"] == WHOLE
    assert "cut" not in row.answer
    assert [passage["cited"] for passage in row.answer["passages"]] == [True, False]
    assert row.request == {"messages": QUESTION}


async def test_what_cannot_be_kept_is_not_answered(proxy: Proxy, log: Log) -> None:
    log.full = True
    with pytest.raises(Exception, match="did not answer"):
        await proxy.begin()
    assert not proxy.router.requests


def test_an_answer_ends_once(log: Log) -> None:
    request = answering(log)
    request.answered({"type": "message", "content": [{"type": "text", "text": "Hello"}]})
    request.end(RuntimeError("late"))
    [row] = log.rows
    assert (row.answer, row.user_id) == ({"status": 200, "text": "Hello"}, ALICE.user_id)


def test_the_headers_of_a_stream_do_not_end_it(log: Log) -> None:
    request = answering(log, stream=True)
    request.answered(as_stream(ModelResponse()))
    assert not log.rows
    request.end()
    assert len(log.rows) == 1


@pytest.mark.parametrize(
    "piece",
    [
        ModelResponse(choices=[]),
        {"type": "message", "content": ["Hello"]},
        {"object": "response", "output": [{"type": "message", "content": "Hello"}]},
        7,
    ],
)
def test_an_answer_of_another_form_is_noted_as_cut_and_reaches_the_client(log: Log, piece: Any) -> None:
    if isinstance(piece, ModelResponse):
        piece.choices = []
    request = answering(log)
    request.hear(piece)
    request.end()
    [row] = log.rows
    assert row.answer == {"status": 200, "text": "", "cut": True}
