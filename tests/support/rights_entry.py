"""What the rights matrix' proxy loads for `custom_auth`: the entry as it is, and two things to look with.

The routes of ours in LiteLLM's application are written to the file ``ROUTES_FILE``. The model
`greedy/<name>` calls the tools that the last user message names as JSON, ``[{"name", "arguments"}]``, and
then says everything that they answered: the worst model that a user could have. The file ``PLANT_FILE`` holds
the name of the hole that is open, if one is to be found.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import litellm
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from litellm.llms.custom_llm import CustomLLM
from litellm.proxy import proxy_server
from litellm.proxy.proxy_server import app
from litellm.types.utils import GenericStreamingChunk, ModelResponse
from litellm.utils import custom_llm_setup

from crawler.store import Privileges
from plugins.collections.search import Searcher
from plugins.core.identity import RIGHTS, Principal, Right
from plugins.core.ports import Call, ToolResult
from plugins.core.toolbox import Toolbox
from plugins.entry import authenticate
from plugins.proxy import auth, mount

__all__ = ["authenticate"]


def calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for part in dependant.dependencies:
        yield from calls(part)


def routes(found: Sequence[Any]) -> Iterator[Any]:
    """The routes themselves, out of the routers and applications that hold them."""
    for route in found:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if hasattr(route, "endpoint"):
            yield route
        else:
            yield from routes(getattr(inner, "routes", None) or [])


def table() -> list[dict[str, Any]]:
    """Every route whose function is in a package of ours, and whether it depends on a sign-in."""
    return [
        {
            "method": method,
            "path": route.path_format,
            "authenticated": mount.authenticated in depends_on(route),
        }
        for route in routes(app.routes)
        if route.endpoint.__module__.startswith("plugins.")
        for method in sorted(getattr(route, "methods", None) or {"WEBSOCKET"})
    ]


def depends_on(route: Any) -> set[Any]:
    return set(calls(route.dependant)) if isinstance(route, APIRoute) else set()


class Greedy(CustomLLM):
    async def astreaming(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[GenericStreamingChunk]:
        text, wanted = said(kwargs["messages"])
        if text:
            yield piece(text=text)
        for index, call in enumerate(wanted):
            yield piece(tool={**call, "index": index})
        yield piece(finish="tool_calls" if wanted else "stop")

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        text, wanted = said(kwargs["messages"])
        response: ModelResponse = kwargs["model_response"]
        choice: Any = response.choices[0]
        choice.message.content = text or None
        if wanted:
            choice.message.tool_calls = [litellm.ChatCompletionMessageToolCall(**call) for call in wanted]
        choice.finish_reason = "tool_calls" if wanted else "stop"
        return response


def said(messages: Sequence[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The text, or the tool calls."""
    answers = [message["content"] for message in messages if message["role"] == "tool"]
    if answers:
        return json.dumps(answers), []
    calls = [
        {"name": call["name"], "arguments": json.dumps(call["arguments"])}
        for call in json.loads(messages[-1]["content"])
    ]
    return "", [
        {"id": f"call_{number}", "type": "function", "function": call} for number, call in enumerate(calls)
    ]


def piece(text: str = "", tool: Any = None, finish: str = "") -> GenericStreamingChunk:
    usage: Any = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2} if finish else None
    return GenericStreamingChunk(
        text=text, tool_use=tool, is_finished=bool(finish), finish_reason=finish, usage=usage, index=0
    )


def is_open(hole: Callable[[], None]) -> bool:
    return PLANT_FILE.read_text(encoding="utf-8") == hole.__name__


def names_need_no_right() -> None:
    """Chat does not look at the right to a collection that a request names."""
    real = Searcher._queryable

    async def queryable(self: Searcher, connection: Any, principal: Any, named: Any) -> Any:
        if is_open(names_need_no_right) and named and sys._getframe(1).f_code.co_name == "queryable":
            return [await self._gate.find(connection, ref) for ref in named]
        return await real(self, connection, principal, named)

    Searcher._queryable = queryable  # type: ignore[method-assign]


def tools_run_as_an_insider() -> None:
    """The tools that a model calls run as somebody else than who asked."""
    real = Toolbox.run_for_model
    other = Principal(source="local", subject="insider", username="insider", groups=frozenset({"insiders"}))

    async def run(self: Toolbox, name: str, arguments: Any, call: Call, timeout_s: float) -> ToolResult:
        if is_open(tools_run_as_an_insider):
            call = replace(call, principal=other)
        return await real(self, name, arguments, call, timeout_s)

    Toolbox.run_for_model = run  # type: ignore[method-assign]


def every_key_is_the_master_key() -> None:
    """What is handed back to LiteLLM is not what the client sent."""
    real = auth._handed_back

    def handed_back(key: Any) -> Any:
        return proxy_server.master_key if is_open(every_key_is_the_master_key) else real(key)

    auth._handed_back = handed_back


def every_role_may_everything() -> None:
    """What Milvus's roles say is not looked at."""
    real = Privileges.on

    def on(self: Privileges, name: str) -> frozenset[Right]:
        return frozenset(RIGHTS) if is_open(every_role_may_everything) else real(self, name)

    Privileges.on = on  # type: ignore[method-assign]


if "PLANT_FILE" in os.environ:
    PLANT_FILE = Path(os.environ["PLANT_FILE"])
    for hole in (
        names_need_no_right,
        tools_run_as_an_insider,
        every_key_is_the_master_key,
        every_role_may_everything,
    ):
        hole()

litellm.custom_provider_map.append({"provider": "greedy", "custom_handler": Greedy()})
custom_llm_setup()  # type: ignore[no-untyped-call]
Path(os.environ["ROUTES_FILE"]).write_text(json.dumps(table()), encoding="utf-8")
