"""How the model is asked again for the later rounds."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from litellm.exceptions import BadRequestError

from plugins.proxy.upstream import ask_again, public
from tests.support.fake_proxy import ANSWER, QUESTION
from tests.support.services import a_call


async def test_what_the_router_notes_in_a_rounds_metadata_is_not_in_the_other_rounds(proxy_with: Any) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.stream(litellm_metadata={"team": "t"})
    first, second = proxy.router.requests
    for name in ("metadata", "litellm_metadata"):
        assert second[name] == first[name]
        second[name]["model_group"] = "noted by the router"
        assert "model_group" not in first[name]


@pytest.mark.parametrize(("body", "trace"), [({}, "req-1"), ({"litellm_trace_id": "chat-7"}, "chat-7")])
async def test_the_later_rounds_are_logged_as_one_trace_with_the_first(
    proxy_with: Any, body: dict[str, Any], trace: str
) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.stream(**body)
    assert proxy.router.requests[1]["litellm_trace_id"] == trace


async def test_a_later_round_is_not_cached_whatever_the_first_rounds_request_says(proxy_with: Any) -> None:
    proxy = proxy_with(*ANSWER)
    await ask_again({"model": "rag-model", "cache": {"ttl": 60}}, None)(QUESTION, True)
    assert proxy.router.requests[0]["cache"] == {"no-cache": True, "no-store": True}


def test_what_a_provider_says_of_a_request_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    error = BadRequestError("cannot read: the code of the safe is 4711", model="m", llm_provider="openai")
    with caplog.at_level(logging.INFO):
        said = public(error, a_call())
    assert "BadRequestError, status 400" in caplog.text
    assert "4711" not in caplog.text + said.message
