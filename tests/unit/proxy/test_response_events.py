"""The events of `/v1/responses` and `/v1/messages`, whatever the loop's output is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litellm.types.utils import ModelResponseStream, Usage
from openai import Omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from plugins.proxy.apis.message_events import MessageEvents
from plugins.proxy.apis.response_events import ResponseEvents
from plugins.proxy.chunks import make_chunk
from plugins.proxy.citations import Citations, Span
from plugins.proxy.loop import Activity, Output, Sources
from plugins.proxy.tool_calls import Ran
from tests.support.services import a_passage

CITATIONS = Citations("https://proxy.example")
BEGUN = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "tools": []}
BEGUN |= {"tool_choice": "auto", "parallel_tool_calls": True}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
FOUND = a_passage("The notice period is 30 days.")


def delta(**fields: Any) -> ModelResponseStream:
    return make_chunk("resp_1", 1, fields, model="m")


def call(index: int, arguments: str, name: str | None = None) -> ModelResponseStream:
    function = {"name": name, "arguments": arguments}
    begun = {"id": f"call_{index}"} if name else {}
    return delta(tool_calls=[{"index": index, "type": "function", "function": function, **begun}])


def searched(call_id: str) -> list[Output]:
    ran = Ran(call_id, "search_documents", '{"query": "notice"}', passages=(FOUND,), numbers=(1,))
    return [Activity(make_chunk("resp_1", 1, None), (ran,), done, ("Searching",)) for done in (False, True)]


def ended(reason: str = "stop") -> list[Output]:
    usage = Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
    finish = make_chunk("resp_1", 1, {}, model="m", finish_reason=reason)
    return [finish, make_chunk("resp_1", 1, None, usage=usage)]


def responses(outputs: Sequence[Output], *, results: bool = False) -> list[dict[str, Any]]:
    events = ResponseEvents(lambda: BEGUN, CITATIONS, results=results)
    return [event.model_dump() for output in outputs for event in events.of(output)]


def messages(outputs: Sequence[Output]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    events = MessageEvents(lambda: {"id": "msg_1", "model": "m"}, CITATIONS, {"short": "a long name"})
    seen = [event for output in outputs for event in events.of(output)]
    assert events.final is not None
    return seen, events.final


SAID: st.SearchStrategy[list[Output]] = st.one_of(
    st.text(min_size=1, max_size=5).map(lambda text: [delta(content=text)]),
    st.text(min_size=1, max_size=5).map(lambda text: [delta(reasoning_content=text)]),
    st.integers(0, 10**6).map(lambda number: searched(f"call_s{number}")),
)
CALLED = st.lists(st.text(max_size=5), max_size=3).map(
    lambda pieces: [call(0, "", "weather"), call(1, "{}", "clock"), *(call(0, piece) for piece in pieces)]
)


@settings(deadline=None)
@given(st.lists(SAID, max_size=8), st.one_of(st.just([]), CALLED))
def test_what_openais_sdk_makes_of_the_events_is_the_response_at_their_end(
    said: list[list[Output]], called: list[Output]
) -> None:
    events = responses([output for part in said for output in part] + called + ended())
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    state: ResponseStreamState[Any] = ResponseStreamState(text_format=Omit(), input_tools=Omit())
    for event in events[:-1]:
        state.handle_event(EVENT.validate_python(event))
    snapshot: Any = state.accumulate_event(EVENT.validate_python(events[1]))  # it adds nothing
    final = events[-1]["response"]["output"]
    assert [item.type for item in snapshot.output] == [item["type"] for item in final]
    for item, whole in zip(snapshot.output, final, strict=True):
        assert item.id == whole["id"]
        if item.type == "message":
            assert item.content[0].text == whole["content"][0]["text"]
        elif item.type == "function_call":
            assert item.arguments == whole["arguments"]


@settings(deadline=None)
@given(st.lists(SAID, max_size=8), st.one_of(st.just([]), CALLED))
def test_every_item_that_is_begun_is_ended_once_in_its_own_name(
    said: list[list[Output]], called: list[Output]
) -> None:
    events = responses([output for part in said for output in part] + called + ended())
    open_items: dict[Any, str] = {}
    for event in events:
        place = event.get("output_index")
        if event["type"] == "response.output_item.added":
            assert place not in open_items
            open_items[place] = event["item"]["id"]
        elif event["type"] == "response.output_item.done":
            assert open_items.pop(place) == event["item"]["id"]
            assert event["item"].get("status", "completed") == "completed"
        elif place is not None:
            assert open_items[place] == event["item_id"]
    assert not open_items
    assert events[-1]["type"] == "response.completed"


@settings(deadline=None)
@given(st.lists(SAID, max_size=8), st.one_of(st.just([]), CALLED))
def test_a_messages_blocks_come_one_after_the_other_and_make_the_whole(
    said: list[list[Output]], called: list[Output]
) -> None:
    events, final = messages([output for part in said for output in part] + called + ended())
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    starts = [event for event in events if event["type"] == "content_block_start"]
    assert [event["index"] for event in starts] == list(range(len(final["content"])))
    for index, block in enumerate(final["content"]):
        deltas = [event["delta"] for event in events if event.get("index") == index and "delta" in event]
        name = {"text": "text", "thinking": "thinking"}.get(block["type"])
        if name is not None:
            assert "".join(piece[name] for piece in deltas) == block[name] != ""


@pytest.mark.parametrize(
    ("reason", "status", "stopped"),
    [("stop", "completed", "end_turn"), ("length", "incomplete", "max_tokens")],
)
def test_a_cut_answer_says_so(reason: str, status: str, stopped: str) -> None:
    outputs = [delta(content="It is"), *ended(reason)]
    response = responses(outputs)[-1]
    assert (response["type"], response["response"]["status"]) == (f"response.{status}", status)
    wanted = {"reason": "max_output_tokens"} if reason == "length" else None
    assert response["response"]["incomplete_details"] == wanted
    assert messages(outputs)[1]["stop_reason"] == stopped


def test_a_limit_that_was_reached_is_named() -> None:
    spent = Sources(make_chunk("resp_1", 1, None), (), [], [], (), "max_rounds")
    outputs = [delta(content="It is 30."), spent, *ended()]
    expected = {"limit_reached": "max_rounds"}
    assert responses(outputs)[-1]["response"]["provider_specific_fields"] == expected
    seen, final = messages(outputs)
    assert final["provider_specific_fields"] == seen[-2]["provider_specific_fields"] == expected
    assert "citations" not in final["content"][0]


def test_a_page_of_the_web_is_cited_by_its_address_and_a_document_by_its_id() -> None:
    page = FOUND.model_copy(update={"source": "https://law.example/notice", "title": "Law"})
    spans = (Span(1, 6, 9), Span(2, 10, 13))
    sources = Sources(make_chunk("resp_1", 1, None), (FOUND, page), [], [], spans)
    events = responses([delta(content="It is [1] [2]"), sources, *ended()])
    [part] = events[-1]["response"]["output"][0]["content"]
    document = {
        "type": "file_citation",
        "index": 6,
        "file_id": FOUND.document_id,
        "filename": FOUND.filename,
    }
    web = {"type": "url_citation", "start_index": 10, "end_index": 13, "title": "Law", "url": page.source}
    assert part["annotations"] == [document, web]


def test_a_tool_that_had_to_be_given_a_shorter_name_is_called_by_its_own() -> None:
    _, final = messages([call(0, '{"a": 1}', "short"), *ended("tool_calls")])
    assert final["content"] == [
        {"type": "tool_use", "id": "call_0", "name": "a long name", "input": {"a": 1}}
    ]
    assert final["stop_reason"] == "tool_use"
