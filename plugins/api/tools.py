"""`/v1/tools`: list and run tools without a model."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Request
from pydantic import SecretStr

from plugins.api.route import Route, errors, noted
from plugins.core.errors import InvalidRequest, ToolFailed, ToolRetry
from plugins.core.identity import Principal
from plugins.core.passages import render
from plugins.core.ports import Call, Scope, ToolResult
from plugins.core.request_id import request_id
from plugins.core.shapes import RunTools, Shape, TextContent, ToolAnswer, ToolAnswers, ToolCall
from plugins.core.toolbox import Toolbox

_ONE = {"name": "search_documents", "arguments": {"query": "How many days of notice?"}}
_MANY = {
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "search_documents", "arguments": '{"query": "days of notice"}'},
        }
    ]
}
_EXAMPLES = {"one": {"value": _ONE}, "many": {"value": _MANY}}
MILVUS_TOKEN = "milvus_token"  # noqa: S105 - a key
_UNNARROWED = Scope(max_num_results=50)


class FunctionSchema(Shape):
    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema."""


class ToolSchema(Shape):
    type: Literal["function"] = "function"
    function: FunctionSchema


class ToolList(Shape):
    object: Literal["list"] = "list"
    data: list[ToolSchema]


def router(
    toolbox: Toolbox,
    authenticated: Callable[..., Awaitable[Principal]],
    *,
    timeout_s: float,
    max_parallel: int,
) -> APIRouter:
    """The routes of tools; each run gets ``timeout_s``, ``max_parallel`` of one request at once."""
    routes = APIRouter(route_class=Route, tags=["tools"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get("/v1/tools", summary="List tools", responses=errors())
    async def list_tools(caller: Caller) -> ToolList:
        """The tools that you may run, as OpenAI function schemas: pass them to a model as `tools`."""
        return ToolList.model_validate({"data": toolbox.schemas(caller)})

    @routes.post(
        "/v1/tools",
        summary="Run tools",
        response_model_exclude_none=True,
        responses=errors(403, 404, 413),
        openapi_extra={"requestBody": {"content": {"application/json": {"examples": _EXAMPLES}}}},
    )
    async def run_tools(
        caller: Caller, body: RunTools, request: Request, background: BackgroundTasks
    ) -> ToolAnswer | ToolAnswers:
        """One tool by `name` and `arguments` answers as MCP's tool result; a model's `tool_calls` are run
        at once and answered in their order, each with its `tool_call_id`. `metadata` is for what a tool
        needs to start: `milvus_token` is your own Milvus credential (`user:password` or an API key) for
        collections whose rights are Milvus's. Who you are comes from your token only."""
        if (body.name is None) == (body.tool_calls is None):
            raise InvalidRequest("Send either `name` (and `arguments`) or `tool_calls`.", param="name")
        principal, metadata = _with_credential(caller, body.metadata)
        call = Call(
            principal=principal,
            request_id=request_id(request),
            deadline=time.monotonic() + timeout_s * len(body.tool_calls or [body.name]),
            scope=_UNNARROWED,
            metadata=metadata,
        )
        if body.name is not None:
            return await _run_one(toolbox, body.name, body.arguments, call, timeout_s)
        slots = asyncio.Semaphore(max_parallel)
        answers = (
            _run_of_many(toolbox, tool_call, call, timeout_s, slots) for tool_call in body.tool_calls or []
        )
        answered = await asyncio.gather(*answers)
        notes = (noted(request, cause) for _, cause in answered if isinstance(cause, Exception))
        background.tasks += [note for note in notes if note is not None][:1]  # one request, one refusal
        return ToolAnswers(data=[answer for answer, _ in answered])

    return routes


def _with_credential(caller: Principal, metadata: dict[str, Any]) -> tuple[Principal, dict[str, Any]]:
    """The caller with the Milvus credential of the metadata, and the rest of that."""
    if MILVUS_TOKEN not in metadata:
        return caller, metadata
    rest = {key: value for key, value in metadata.items() if key != MILVUS_TOKEN}
    token = metadata[MILVUS_TOKEN]
    if not isinstance(token, str) or not token:
        raise InvalidRequest("`milvus_token` must be text.", param=f"metadata.{MILVUS_TOKEN}")
    return caller.model_copy(update={"store_credential": SecretStr(token)}), rest


async def _run_one(
    toolbox: Toolbox, name: str, arguments: dict[str, Any] | str | None, call: Call, timeout_s: float
) -> ToolAnswer:
    args = toolbox.parse(call.principal, name, arguments)
    try:
        return _answer(await toolbox.run(name, args, call, timeout_s))
    except (ToolRetry, ToolFailed) as error:
        return _failed(error)


async def _run_of_many(
    toolbox: Toolbox, tool_call: ToolCall, call: Call, timeout_s: float, slots: asyncio.Semaphore
) -> tuple[ToolAnswer, BaseException | None]:
    """The answer, and what was behind it where the tool failed."""
    function, cause = tool_call.function, None
    async with slots:
        try:
            answer = _answer(await toolbox.run_for_model(function.name, function.arguments, call, timeout_s))
        except (ToolRetry, ToolFailed) as error:
            answer, cause = _failed(error), error.__cause__
    return answer.model_copy(update={"tool_call_id": tool_call.id}), cause


def _answer(result: ToolResult) -> ToolAnswer:
    text = "\n\n".join(part for part in (result.text, render(result.passages)) if part)
    return ToolAnswer(content=[TextContent(text=text)], structuredContent=result.structured)


def _failed(error: ToolRetry | ToolFailed) -> ToolAnswer:
    return ToolAnswer(content=[TextContent(text=str(error))], isError=True)
