"""A client that goes away: what runs for it is ended, and what came of a round is paid for once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from fastapi import HTTPException, Request
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
from litellm.types.utils import ModelResponse, ModelResponseStream

from plugins.proxy.disconnect import PaidStream, arrived
from tests.support.fake_proxy import QUESTION, SEARCH
from tests.support.fake_router import Round, Stream, text


class Logging:
    """LiteLLM's of one call: what it is told to charge."""

    def __init__(self) -> None:
        self.paid: list[ModelResponse] = []
        self.model_call_details: dict[str, Any] = {}

    def response_cost_calculator(self, result: ModelResponse) -> float:
        return 0.0

    async def dispatch_success_handlers(self, response: ModelResponse, **_: Any) -> None:
        self.paid.append(response)


class Charged(Stream):
    """A stream that LiteLLM would charge what was taken of."""

    messages = QUESTION
    model = "provider/m"

    def __init__(self, played: Round) -> None:
        super().__init__(played, {})
        self.logging_obj = Logging()

    async def __anext__(self) -> ModelResponseStream:
        chunk = await super().__anext__()
        self.chunks.append(chunk)
        return chunk


def a_stream(played: Round) -> tuple[PaidStream, Charged]:
    charged = Charged(played)
    return PaidStream(cast("CustomStreamWrapper", charged)), charged


@pytest.mark.parametrize("mode", ["tool", "context"])
async def test_a_client_that_leaves_before_its_plain_answer_ends_the_tool_that_runs_for_it(
    proxy_with: Any, mode: str
) -> None:
    proxy = proxy_with(Round([SEARCH]), Round([text("done")]))
    proxy.tool.hold = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await proxy.tool.started.wait()
        return {"type": "http.disconnect"}

    arrived(Request({"type": "http"}, receive))
    with pytest.raises(HTTPException) as gone:
        await proxy.plain(rag={"mode": mode})
    assert gone.value.status_code == 499
    assert proxy.tool.cancelled


async def test_what_came_of_a_round_that_is_left_is_paid_once_under_the_model_that_was_asked() -> None:
    stream, charged = a_stream(Round([text("It is 30"), text(" days.")]))
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    [part] = charged.logging_obj.paid
    choice: Any = part.choices[0]
    assert (choice.message.content, part.model) == ("It is 30", "provider/m")


async def test_a_round_that_ended_is_left_to_litellm_to_charge() -> None:
    stream, charged = a_stream(Round([text("It is 30 days.")]))
    assert [chunk async for chunk in stream] == charged.chunks
    await stream.aclose()
    assert charged.logging_obj.paid == []


async def test_a_round_that_failed_is_left_to_litellm_to_charge() -> None:
    stream, charged = a_stream(Round([text("It is")], error=RuntimeError("broken off")))
    await anext(stream)
    with pytest.raises(RuntimeError):
        await anext(stream)
    await stream.aclose()
    assert charged.logging_obj.paid == []
