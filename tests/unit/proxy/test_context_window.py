"""What is left out of a conversation that is longer than its model takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.proxy.context_window import SEARCHED, Window
from plugins.proxy.tool_calls import Ran
from tests.support.fake_proxy import FOUND, said
from tests.support.fake_router import Round, call, text
from tests.support.services import a_passage

WORDS = "some words of a passage that take their room in the prompt " * 8
"""About 100 tokens."""
SYSTEM = {"role": "system", "content": "Be brief."}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def a_round(call_id: str) -> list[dict[str, Any]]:
    made = {"id": call_id, "type": "function", "function": {"name": "search_documents", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": call_id, "content": "written anew"},
    ]


def a_result(call_id: str, *numbers: int, note: str = "") -> Ran:
    passages = tuple(a_passage(f"passage {number}: {WORDS}") for number in numbers)
    return Ran(call_id, "search_documents", "{}", note, passages, numbers)


def shown(messages: list[dict[str, Any]]) -> list[int]:
    """The numbers of the passages that stand there in full."""
    return [n for n in range(1, 30) for m in messages if f"passage {n}: " in str(m.get("content"))]


async def test_without_a_known_limit_nothing_is_left_out() -> None:
    messages = [SYSTEM, user("old " * 5000), assistant("answer"), user("new"), *a_round("a")]
    fitted = await Window().fit(messages, [a_result("a", *range(1, 20))])
    assert fitted[:-1] == messages[:-1]
    assert shown(fitted) == list(range(1, 20))


async def test_a_passage_given_before_is_named_by_number_and_place_only() -> None:
    messages = [user("q"), *a_round("a"), *a_round("b")]
    fitted = await Window().fit(messages, [a_result("a", 1, 2), a_result("b", 2, 3)])
    assert "[2] Handbook > Leave (page 3): given above." in fitted[-1]["content"]
    assert shown(fitted) == [1, 2, 3]


async def test_the_oldest_result_is_shortened_first_and_its_last_passage_first() -> None:
    messages = [SYSTEM, user("old"), assistant("answer"), user("new"), *a_round("a"), *a_round("b")]
    results = [a_result("a", 1, 2, 3, note="Some notes."), a_result("b", 4, 5)]
    fitted = await Window(600, answer_tokens=50).fit(messages, results)
    assert shown(fitted) == [1, 4, 5]
    assert fitted[5]["content"].startswith("Some notes.\n\n[1] ")
    assert fitted[5]["content"].endswith(
        "2 more passages were left out: the conversation has become too long."
    )
    assert fitted[:4] == messages[:4], "turns are left out only after passages"


async def test_a_passage_left_out_of_an_old_result_is_given_in_full_where_it_was_found_again() -> None:
    messages = [user("q"), *a_round("a"), *a_round("b")]
    fitted = await Window(330, answer_tokens=50).fit(messages, [a_result("a", 1, 2), a_result("b", 2)])
    assert "passage 2: " in fitted[-1]["content"]
    assert "passage 2: " not in fitted[2]["content"]


async def test_then_the_oldest_turns_go_whole_and_the_newest_passages_stay() -> None:
    turns = [user("first " * 200), *a_round("client"), assistant("said"), user("second"), assistant("said")]
    messages = [SYSTEM, *turns, user("last"), *a_round("a")]
    fitted = await Window(550, answer_tokens=50).fit(messages, [a_result("a", 1, 2, 3, 4, 5)])
    assert fitted[:4] == [SYSTEM, user("second"), assistant("said"), user("last")]
    assert shown(fitted) == [1, 2, 3]


async def test_system_messages_and_the_last_question_stay_however_long() -> None:
    question = user("question " * 500)
    messages = [SYSTEM, user("old"), {"role": "developer", "content": "More."}, question, *a_round("a")]
    fitted = await Window(300).fit(messages, [a_result("a", 1)])
    assert fitted[:3] == [SYSTEM, {"role": "developer", "content": "More."}, question]
    assert shown(fitted) == []
    assert fitted[-1]["content"].startswith("1 more passage was left out")


async def test_what_was_searched_before_is_put_in_front_of_the_question_and_shortened_there() -> None:
    window = Window(800, answer_tokens=50)
    searched = a_result(SEARCHED, 1, 2, 3, 4)
    first = await window.fit([SYSTEM, user("What?")], [searched])
    assert shown(first) == [1, 2, 3, 4]
    assert first[1]["content"].endswith("</documents>\n\nWhat?")
    later = await window.fit([*first, *a_round("a")], [searched, a_result("a", 5, 6, 7)])
    assert later[1]["content"].count("<documents>") == 1
    assert later[1]["content"].endswith("</documents>\n\nWhat?")
    assert shown(later) == [1, 2, 5, 6, 7]


async def test_a_question_that_a_guardrail_changed_is_not_written_anew() -> None:
    window = Window()
    searched = a_result(SEARCHED, 1)
    [first] = await window.fit([user("Is it Alice?")], [searched])
    masked = {**first, "content": first["content"].replace("Alice", "<PERSON>")}
    again = await window.fit([masked, *a_round("a")], [searched, a_result("a", 2)])
    assert again[0] == masked


@pytest.mark.parametrize("odd", [{"tool_call_id": ["x"]}, {"content": 3}, {"content": [3, {"text": 4}]}, {}])
async def test_odd_messages_are_left_to_the_model_to_refuse(odd: dict[str, Any]) -> None:
    messages = [{"role": "tool", **odd}, user("q")]
    assert await Window(3000).fit(messages, [a_result(SEARCHED)]) == [
        messages[0],
        user("<documents>\nNothing was found.\n</documents>\n\nq"),
    ]


async def test_images_and_sounds_count_without_being_looked_at() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "http://unreachable.invalid/x.png"}}]
    messages = [{"role": "user", "content": parts}, assistant("A cat."), user("And now?")]
    assert await Window(600).fit(messages, []) == messages[2:]
    assert await Window(3000).fit(messages, []) == messages


async def test_the_arguments_of_calls_take_room_too() -> None:
    called, told = a_round("client")
    long = {
        **called,
        "tool_calls": [{**called["tool_calls"][0], "function": {"name": "x", "arguments": WORDS * 9}}],
    }
    turns = [assistant("said"), user("new")]
    short = [user("old"), called, told, *turns]
    assert await Window(600).fit(short, []) == short
    assert await Window(600).fit([user("old"), long, told, *turns], []) == [user("new")]


async def test_tools_and_the_answer_take_room_too() -> None:
    messages = [user("old " * 100), assistant("said"), user("new")]
    tools = [{"type": "function", "function": {"name": "x", "description": "words " * 300}}]
    assert await Window(500).fit(messages, []) == messages
    assert await Window(500, tools=tools).fit(messages, []) == messages[2:]
    assert await Window(500, answer_tokens=500).fit(messages, []) == messages, "at most half is the answer's"
    assert await Window(220, answer_tokens=500).fit(messages, []) == messages[2:]


ROLES = st.sampled_from(["system", "user", "assistant"])


@settings(max_examples=60, deadline=None)
@given(
    roles=st.lists(ROLES, max_size=8),
    rounds=st.lists(st.integers(0, 4), max_size=3),
    limit=st.integers(0, 900),
)
async def test_no_call_stays_without_its_result_and_the_last_turn_stays(
    roles: list[str], rounds: list[int], limit: int
) -> None:
    history = [{"role": role, "content": f"{index} {WORDS}"} for index, role in enumerate(roles)]
    ids = [f"c{index}" for index in range(len(rounds))]
    messages = [*a_round("old"), *history, user("last"), *(m for i in ids for m in a_round(i))]
    results = [
        a_result(i, *range(10 * n, 10 * n + k)) for n, (i, k) in enumerate(zip(ids, rounds, strict=True))
    ]
    fitted = await Window(limit).fit(messages, results)
    calls = [call["id"] for m in fitted for call in m.get("tool_calls") or ()]
    assert calls == [m["tool_call_id"] for m in fitted if m["role"] == "tool"]
    assert set(ids) <= set(calls)
    assert user("last") in fitted
    assert [m for m in fitted if m["role"] == "system"] == [m for m in messages if m["role"] == "system"]


# --- in the loop --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_long_conversation_is_made_to_fit_in_every_round(proxy_with: Any, stream: bool) -> None:
    proxy = proxy_with(Round([call("search_documents", '{"query": "x"}')]), Round([text("30 days [1].")]))
    proxy.router.model_info["rag-model"]["max_input_tokens"] = 700
    old = [user("old " * 600), assistant("said")]
    messages = [*old, user("How long?")]
    answer = await (proxy.stream if stream else proxy.plain)(messages=messages)
    first, second = (request["messages"] for request in proxy.router.requests)
    assert [m["role"] for m in first] == ["system", "user"]
    assert [m["role"] for m in second] == ["system", "user", "assistant", "tool"]
    assert FOUND[0].text in second[-1]["content"]
    assert (said(answer) if stream else answer.choices[0].message.content) == "30 days [1]."
