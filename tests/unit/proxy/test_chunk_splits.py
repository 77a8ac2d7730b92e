"""However the model's stream is cut into chunks, the client gets the same answer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import litellm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litellm.proxy import proxy_server

from tests.support.fake_proxy import ANSWER, CLIENT_TOOL, Proxy, finishes, said, tool_deltas
from tests.support.fake_router import Piece, Round, call, text

ARGUMENTS = '{"city": "Köln, [1] & \\"more\\""}'
TEXT = "Notice is 30 days [1], leave 28 [2][1] and [1, 2]; an invented one[7] is left out, [ 1 ] is one."
SHOWN = TEXT.replace("[1, 2]", "[1][2]").replace("[7]", "").replace("[ 1 ]", "[1]")


def cut(whole: str, at: list[int]) -> list[str]:
    edges = sorted({0, len(whole), *(position % (len(whole) + 1) for position in at)})
    return [whole[a:b] for a, b in pairwise(edges)]


def call_in_pieces(name: str, arguments: str, at: list[int], index: int) -> list[Piece]:
    begin = call(name, "", f"call_{index}", index)
    rest = [
        {"index": index, "type": "function", "function": {"arguments": part}} for part in cut(arguments, at)
    ]
    return [begin, *({"tool_calls": [piece]} for piece in rest)]


def together(pieces: list[Piece], joins: list[bool]) -> list[Piece]:
    """Some neighbours in one chunk: a text and the beginning of a call, or pieces of two calls."""
    result: list[Piece] = []
    for piece, join in zip(pieces, [False, *joins, *[False] * len(pieces)], strict=False):
        last = result[-1] if result else {}
        if join and "content" not in piece:
            result[-1] = {**last, "tool_calls": [*last.get("tool_calls", ()), *piece["tool_calls"]]}
        else:
            result.append(piece)
    return result


async def streamed(
    rounds: list[Round], headers: dict[str, str]
) -> tuple[str, list[tuple[Any, ...]], list[str]]:
    proxy = Proxy(rounds)
    router, callbacks = proxy_server.llm_router, litellm.callbacks
    proxy_server.llm_router, litellm.callbacks = proxy.router, [proxy.hooks]  # type: ignore[assignment]
    try:
        chunks = await proxy.stream(tools=[CLIENT_TOOL], proxy_server_request={"headers": headers})
    finally:
        proxy_server.llm_router, litellm.callbacks = router, callbacks
    calls: dict[int, list[str]] = {}
    for delta in tool_deltas(chunks):
        whole = calls.setdefault(delta.index, ["", "", ""])
        whole[0] += delta.id or ""
        whole[1] += delta.function.name or ""
        whole[2] += delta.function.arguments or ""
    return said(chunks), [(index, *whole) for index, whole in sorted(calls.items())], finishes(chunks)


positions = st.lists(st.integers(0, 500), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(positions, positions, st.lists(st.booleans(), max_size=40))
async def test_a_split_changes_neither_text_nor_calls_nor_the_finish_reason(
    text_at: list[int], arguments_at: list[int], joins: list[bool]
) -> None:
    ours = call_in_pieces("search_documents", '{"query": "notice"}', arguments_at, 0)
    theirs = call_in_pieces("weather", ARGUMENTS, arguments_at, 1)
    said_first = [text(part) for part in cut("Let me look.", text_at)]
    rounds = [
        Round(together([*said_first, *ours], joins)),
        Round(together([*(text(part) for part in cut(TEXT, text_at)), *ours, *theirs], joins)),
    ]
    whole = f"Let me look.\n\n{SHOWN}"
    assert await streamed(rounds, {}) == (whole, [(0, "call_1", "weather", ARGUMENTS)], ["tool_calls"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(positions)
async def test_a_split_changes_nothing_of_what_open_webui_shows(text_at: list[int]) -> None:
    cited = TEXT.replace("[1]", "[x]").replace("[2]", "[1]").replace("[x]", "[2]").replace("[1, 2]", "[2, 1]")
    rounds = [ANSWER[0], Round([text(part) for part in cut(cited, text_at)])]
    headers = {"x-openwebui-user-id": "u"}
    assert await streamed(rounds, headers) == (f"Let me look.\n\n{SHOWN}", [], ["stop"])
