"""What one answer may use, by whom; and what happens when it is spent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from plugins.core.chat_config import ChatConfig
from plugins.core.errors import ConfigError
from plugins.core.identity import Principal
from plugins.proxy.auth import Refusal
from plugins.proxy.budgets import Budgets
from tests.support.fake_proxy import CLIENT_TOOL, SEARCH, finishes, said, tool_deltas
from tests.support.fake_router import Round, call, text


def search(query: str, call_id: str = "c", index: int = 0) -> dict[str, Any]:
    return call("search_documents", f'{{"query": "{query}"}}', call_id, index)


ENOUGH = Round([text("Enough: 30 days [1].")])


def limits(chunks: list[Any]) -> list[str]:
    """Which limits the chunks name."""
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    fields = [getattr(delta, "provider_specific_fields", None) or {} for delta in deltas]
    return [found["limit_reached"] for found in fields if "limit_reached" in found]


# --- whose ---------------------------------------------------------------------------------------------


def principal(name: str, *roles: str) -> Principal:
    return Principal(source="keycloak", subject=name, username=name, roles=frozenset(roles))


def test_the_first_entry_that_names_one_counts_and_what_it_leaves_out_is_everyones() -> None:
    config = ChatConfig(
        max_rounds=2,
        max_tokens=1000,
        budgets=[
            {"subjects": ["role:keycloak/admin"], "max_rounds": 10, "deadline_s": 300},
            {"subjects": ["user:bob", "role:keycloak/admin"], "max_tool_calls": 3},
        ],
    )
    budgets = Budgets(config, {"keycloak"})
    admin, bob, eve = (budgets.of(p) for p in (principal("a", "admin"), principal("bob"), principal("eve")))
    assert (admin.max_rounds, admin.max_tokens, admin.deadline_s) == (10, 1000, 300)
    assert (bob.max_rounds, bob.max_tokens, bob.max_tool_calls) == (2, 1000, 3)
    assert (eve.max_rounds, eve.max_tokens, eve.max_tool_calls) == (2, 1000, 20)


def test_an_entry_that_names_nobody_there_is_refused_at_start() -> None:
    config = ChatConfig(budgets=[{"subjects": ["role:gitlab/admin"]}])
    with pytest.raises(ConfigError, match=r"chat\.budgets\[0\]\.subjects"):
        Budgets(config, {"keycloak", "local"})
    with pytest.raises(ValidationError, match="subjects"):
        ChatConfig(budgets=[{"subjects": []}])


async def test_each_request_has_the_budget_of_its_caller(proxy_with: Any) -> None:
    config = ChatConfig(max_rounds=3, budgets=[{"subjects": ["*"], "max_rounds": 1}])
    proxy = proxy_with(Round([SEARCH]), ENOUGH, config=config)
    assert limits(await proxy.stream()) == ["max_rounds"]


# --- spent ---------------------------------------------------------------------------------------------

SPENT = [
    (ChatConfig(max_rounds=1), (Round([SEARCH]), ENOUGH), "max_rounds"),
    (
        ChatConfig(max_tool_calls=1),
        (Round([search("a", "a"), search("b", "b", 1)]), ENOUGH),
        "max_tool_calls",
    ),
    (ChatConfig(max_tokens=20), (Round([search("a")]), Round([search("b")]), ENOUGH), "max_tokens"),
]


@pytest.mark.parametrize(("config", "rounds", "limit"), SPENT)
async def test_when_it_is_spent_the_model_is_asked_once_more_without_tools_and_the_answer_says_so(
    proxy_with: Any, config: ChatConfig, rounds: tuple[Round, ...], limit: str
) -> None:
    proxy = proxy_with(*rounds, config=config)
    chunks = await proxy.stream()
    assert said(chunks) == "Enough: 30 days [1]."
    assert limits(chunks) == [limit]
    assert finishes(chunks) == ["stop"]
    assert ["tools" in request for request in proxy.router.requests] == [True] * (len(rounds) - 1) + [False]
    assert len(proxy.tool.calls) == 1
    answered = [m["tool_call_id"] for m in proxy.router.requests[-1]["messages"] if m["role"] == "tool"]
    called = [c["id"] for m in proxy.router.requests[-1]["messages"] for c in m.get("tool_calls") or ()]
    assert answered == called, "calls that were not run are answered, too"
    message = (await proxy_with(*rounds, config=config).plain()).choices[0].message
    assert message.provider_specific_fields["limit_reached"] == limit


async def test_an_answer_within_its_budget_names_no_limit(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), ENOUGH, config=ChatConfig(max_rounds=2))
    assert limits(await proxy.stream()) == []


async def test_open_webui_is_told_the_limit_too(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), ENOUGH, config=ChatConfig(max_rounds=1))
    headers = {"x-openwebui-user-id": "u"}
    assert limits(await proxy.stream(proxy_server_request={"headers": headers})) == ["max_rounds"]


async def test_an_answer_that_cites_nothing_names_its_limit_and_no_sources(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), Round([text("I do not know.")]), config=ChatConfig(max_rounds=1))
    message = (await proxy.plain()).choices[0].message
    assert message.provider_specific_fields == {"limit_reached": "max_rounds"}


async def test_a_client_tool_is_handed_back_whatever_is_spent(proxy_with: Any) -> None:
    rounds = (Round([SEARCH]), Round([call("weather", "{}", "w")]))
    proxy = proxy_with(*rounds, config=ChatConfig(max_tokens=20))
    chunks = await proxy.stream(tools=[CLIENT_TOOL])
    assert finishes(chunks) == ["tool_calls"]
    assert len(tool_deltas(chunks)) == 1


# --- the deadline --------------------------------------------------------------------------------------


async def test_a_silent_round_is_left_at_the_deadline_and_the_answer_asked_for(proxy_with: Any) -> None:
    silent = Round([SEARCH, search("more", "m", 1)], waits_for=asyncio.Event())
    proxy = proxy_with(silent, ENOUGH, config=ChatConfig(deadline_s=0.2))
    chunks = await proxy.stream()
    assert limits(chunks) == ["deadline"]
    assert said(chunks) == "Enough: 30 days [1]."
    assert proxy.router.streams[0].closed, "two rounds at once are one too many for a small server"
    assert "tools" not in proxy.router.requests[1]
    assert not any(m.get("tool_calls") for m in proxy.router.requests[1]["messages"])


async def test_a_tool_that_is_too_slow_is_left_at_the_deadline(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), Round([text("I could not look.")]), config=ChatConfig(deadline_s=0.2))
    proxy.tool.hold = asyncio.Event()
    chunks = await proxy.stream()
    assert (said(chunks), limits(chunks)) == ("I could not look.", ["deadline"])
    assert proxy.tool.cancelled


async def test_an_answer_that_runs_is_not_cut_at_the_deadline(proxy_with: Any) -> None:
    gate = asyncio.Event()
    running = Round([text("It is"), text(" 30 days.")], waits_for=gate)
    proxy = proxy_with(Round([SEARCH]), running, config=ChatConfig(deadline_s=0.3))
    chunks = proxy.chunks(await proxy.begin(stream=True))
    begun = [await anext(chunks)]
    asyncio.get_running_loop().call_later(0.35, gate.set)
    begun += [chunk async for chunk in chunks]
    assert said(begun) == "It is 30 days."
    assert limits(begun) == []


async def test_a_last_answer_that_says_nothing_has_as_long_again_and_no_longer(proxy_with: Any) -> None:
    never = asyncio.Event()
    proxy = proxy_with(
        Round([SEARCH], waits_for=never),
        Round([text("a")], waits_for=never),
        config=ChatConfig(deadline_s=0.1),
    )
    with pytest.raises(Refusal) as refused:
        await proxy.stream()
    assert refused.value.code == "504"
    assert proxy.router.streams[1].closed


@pytest.mark.parametrize("asked", [{}, {"response_format": {"type": "json_object"}}])
async def test_a_last_answer_that_has_begun_is_not_cut_either(proxy_with: Any, asked: dict[str, Any]) -> None:
    gate = asyncio.Event()
    running = Round([text('{"days":'), text(" 30}")], waits_for=gate)
    proxy = proxy_with(Round([SEARCH]), running, config=ChatConfig(max_rounds=1, deadline_s=0.2))
    chunks = proxy.chunks(await proxy.begin(stream=True, **asked))
    begun = [await anext(chunks)]
    asyncio.get_running_loop().call_later(0.45, gate.set)
    begun += [chunk async for chunk in chunks]
    assert said(begun) == '{"days": 30}'


async def test_a_model_that_does_not_begin_its_last_round_is_a_gateway_timeout(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), config=ChatConfig(deadline_s=0.05))
    chunks = proxy.chunks(await proxy.begin(stream=True))
    asked: list[bool] = []

    async def never(**request: Any) -> None:
        asked.append("tools" in request)
        await asyncio.Event().wait()

    proxy.router.acompletion = never
    with pytest.raises(Refusal) as refused:
        [chunk async for chunk in chunks]
    assert refused.value.code == "504"
    assert asked == [True, False], "the last has no tools"
