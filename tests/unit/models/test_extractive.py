"""The extractive model: when it searches, and what it quotes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Any

import litellm
import pytest

from plugins.core.passages import render
from plugins.core.ports import Passage
from plugins.models import register
from tests.support.services import a_passage

HANDBOOK = """## Notice

The **notice period** is 30 days. It starts at the end of the month.
Everyone has 28 days of leave a year, see [3].

- Working hours are 9 to 17
- The canteen is open at noon
"""
REVENUE = """| Year | Revenue | Profit |
|:-----|--------:|---|
| 2024 | 12.1 million EUR | 1.0 |
| 2025 | 14.2 million EUR | 1.4 |
"""
TOOL = {
    "type": "function",
    "function": {
        "name": "search_documents",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    },
}


@pytest.fixture(autouse=True)
def _registered() -> None:
    register()


async def ask(messages: list[dict[str, Any]], **params: Any) -> Any:
    return await litellm.acompletion(model="local/extractive", messages=messages, **params)


def told(question: str, *passages: Passage) -> list[dict[str, Any]]:
    function = {"name": "search_documents", "arguments": json.dumps({"query": question})}
    return [
        {"role": "user", "content": question},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c", "content": render(passages) or "Nothing was found."},
    ]


async def test_offered_the_search_it_searches_for_the_users_question() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Cite."},
        {"role": "user", "content": [{"type": "text", "text": "When?"}]},
    ]
    response = await ask(messages, tools=[TOOL])
    [call] = response.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "search_documents",
        {"query": "When?"},
    )
    assert response.choices[0].finish_reason == "tool_calls"


async def test_a_new_question_is_searched_for_again() -> None:
    messages = [*told("Notice?", a_passage(HANDBOOK)), {"role": "assistant", "content": "30 [1]"}]
    response = await ask([*messages, {"role": "user", "content": "And leave?"}], tools=[TOOL])
    assert json.loads(response.choices[0].message.tool_calls[0].function.arguments) == {"query": "And leave?"}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How many days of notice are there?", "The notice period is 30 days. [1]"),
        ("How many days of leave do I have?", "Everyone has 28 days of leave a year, see (3). [1]"),
        ("What are the working hours?", "Working hours are 9 to 17 [1]"),
        ("What was the revenue in 2025?", "Year: 2025, Revenue: 14.2 million EUR, Profit: 1.4 [2]"),
        ("What is the capital of France?", "I found nothing about this in the documents that you may query."),
    ],
)
async def test_it_quotes_the_best_matching_sentence_with_its_number(question: str, answer: str) -> None:
    response = await ask(told(question, a_passage(HANDBOOK), a_passage(REVENUE)), tools=[TOOL])
    assert response.choices[0].message.content == answer


async def test_with_nothing_found_it_says_so() -> None:
    response = await ask(told("notice?"), tools=[TOOL])
    assert "found nothing" in response.choices[0].message.content


async def test_a_search_that_failed_is_not_told_as_one_that_found_nothing() -> None:
    conversation = told("notice?")
    conversation[-1]["content"] = "Error: The vector store is not available at the moment."
    response = await ask(conversation, tools=[TOOL])
    assert response.choices[0].message.content == conversation[-1]["content"]


@pytest.mark.parametrize("params", [{}, {"tools": [TOOL], "tool_choice": "none"}])
async def test_without_a_search_it_says_what_it_is_and_how_to_connect_a_language_model(params: Any) -> None:
    response = await ask([{"role": "user", "content": "Hello"}], **params)
    assert all(
        word in response.choices[0].message.content for word in ("not a language model", "OLLAMA_BASE_URL")
    )


async def test_it_does_not_call_tools_that_are_not_the_search() -> None:
    weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    response = await ask([{"role": "user", "content": "Hello"}], tools=[weather])
    assert response.choices[0].message.tool_calls is None


async def test_the_stream_is_the_plain_answer_word_by_word_with_usage() -> None:
    messages = told("How many days of notice?", a_passage(HANDBOOK))
    plain = await ask(messages, tools=[TOOL])
    stream = await ask(messages, tools=[TOOL], stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(pieces) == plain.choices[0].message.content
    assert len(pieces) == len(plain.choices[0].message.content.split())
    assert chunks[-1].usage.total_tokens == plain.usage.total_tokens > 0
    again = await ask(messages, tools=[TOOL])
    assert again.choices[0].message.content == plain.choices[0].message.content


async def test_a_model_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(litellm.NotFoundError, match=r"local/gone.*local/extractive, local/minilm"):  # type: ignore[attr-defined]
        await litellm.acompletion(model="local/gone", messages=[{"role": "user", "content": "x"}])


HOSTILE = {
    "passages that never end": '"[1] x\\n```passage\\n" * 60_000',
    "white space": '"[1] x\\n```passage\\n|a\\n" + " " * 1_000_000 + "x\\n```"',
    "a long column name": (
        '"[1] x\\n```passage\\n|" + "a" * 90_000 + "|\\n|-|\\n" + "|a|\\n" * 25_000 + "```\\n```"'
    ),
    "digits": '"[" + "9" * 10_000 + "] x\\n```passage\\na\\n```"',
}
"""What a client may send as a tool's answer, as Python."""


def limited() -> None:
    """The old ways to read such texts needed minutes, or gigabytes."""
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))


def test_hostile_messages_cost_neither_minutes_nor_gigabytes() -> None:
    found = ", ".join(f"{name!r}: {text}" for name, text in HOSTILE.items())
    code = (
        "from plugins.models.extractive import reply\n"
        f"for name, found in {{{found}}}.items():\n"
        "    messages = [{'role': 'user', 'content': 'a'}, {'role': 'tool', 'content': found}]\n"
        "    assert reply(messages, {})[0]\n"
        "    print(name, flush=True)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=limited, capture_output=True, text=True, check=False
    )
    assert child.stdout.splitlines() == list(HOSTILE), child.stderr[-500:]


async def test_passages_in_front_of_the_question_are_quoted_without_searching() -> None:
    found = render([a_passage("The notice period is 30 days. The canteen is open at noon.")])
    question = f"<documents>\n{found}\n</documents>\n\nHow long is the notice period?"
    response = await ask([{"role": "user", "content": question}], tools=[TOOL])
    message = response.choices[0].message
    assert message.tool_calls is None
    assert "The notice period is 30 days. [1]" in message.content
    assert "canteen" not in message.content
