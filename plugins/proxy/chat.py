"""LiteLLM's hooks around chat completions: who is offered our tools, and the loop around the answer.

A request that asks for nothing of ours passes untouched. `/v1/responses` and `/v1/messages` pass
untouched too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import litellm
from litellm.caching.dual_cache import DualCache
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import LLMResponseTypes, ModelResponse, ModelResponseStream

from crawler.errors import CrawlError
from plugins.core.config import ChatConfig, Profile
from plugins.core.errors import BundleError, Forbidden, InvalidRequest, UnknownCollection
from plugins.core.identity import Principal
from plugins.core.logs import about
from plugins.core.ports import Call, Scope
from plugins.core.toolbox import Toolbox
from plugins.proxy import asked as asking
from plugins.proxy import guardrails
from plugins.proxy.asked import Asked
from plugins.proxy.auth import Refusal, principal_of
from plugins.proxy.chunks import as_stream, collected
from plugins.proxy.loop import Ask, Loop, Turn
from plugins.proxy.slots import parallel_slot

Queryable = Callable[[Principal, Sequence[str]], Awaitable[list[tuple[str, str]]]]
"""(id, name) of each of the collections (ids or names) that the principal may query.

Raises UnknownCollection or Forbidden for the first one that may not be queried.
"""

OURS = frozenset({"litellm_logging_obj", "litellm_call_id", "deployment", "guardrail_to_apply"})
"""What belongs to the first round in a request's data; each round is logged and priced by itself."""


@dataclass(frozen=True, slots=True)
class ChatParts:
    """What the hooks need.

    Args:
        toolbox: All tools.
        queryable: The check of `query`.
        config: The rounds, limits and profiles.
        prompt: The system message that tells a model how to cite.
    """

    toolbox: Toolbox
    queryable: Queryable
    config: ChatConfig
    prompt: str


class ChatHooks(CustomLogger):
    """The one entry of `litellm_settings.callbacks`.

    Args:
        parts: Gives the parts; called with the first request that needs them.
    """

    def __init__(self, parts: Callable[[], ChatParts]) -> None:
        super().__init__()
        self._parts = parts
        # By LiteLLM's logging object: the one thing of a request that all hooks get, and that no client sets.
        self._turns: WeakKeyDictionary[Any, Turn] = WeakKeyDictionary()

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: dict[str, Any], call_type: str
    ) -> dict[str, Any] | None:
        """Offer our tools where they are asked for.

        Raises:
            ChatRefusal: What was asked for is not valid, or not allowed.
        """
        if call_type != "acompletion":
            return None
        self._come_first()
        try:
            asked = asking.read(data, rag_of(data.get("model")))
            if asked is None or (asking.is_background_task(data) and not asked.by_client):
                return None
            asking.strip(data)
            if data.get("tool_choice") == "none":
                return data
            principal = principal_of(user_api_key_dict)
            about(request_id=str(data.get("litellm_call_id", "")), user_id=principal.user_id)
            turn = await self._turn(principal, asked, data)
        except (BundleError, CrawlError) as error:
            raise ChatRefusal(error, str(data.get("litellm_call_id", ""))) from error
        if turn is not None:
            self._turns[data["litellm_logging_obj"]] = turn
        return data

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """The stream of the whole loop; another's stream as it is."""
        turn = self._turn_of(request_data)
        if turn is None:
            async for chunk in response:
                yield chunk
            return
        chunks = self._loop(turn, request_data, response, user_api_key_dict).run(response)
        blind = guardrails.without_stream_hook(request_data)
        sent: list[ModelResponseStream] = []
        try:
            async for chunk in chunks:
                if blind and chunk.choices and chunk.choices[0].finish_reason:
                    await guardrails.show(blind, sent, request_data, user_api_key_dict)
                if blind:
                    sent.append(chunk)
                yield chunk
        except (BundleError, CrawlError) as error:
            raise ChatRefusal(error, turn.call.request_id) from error
        finally:
            await chunks.aclose()

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: LLMResponseTypes
    ) -> Any:
        """The plain answer of the whole loop: the same stream, collected."""
        turn = self._turn_of(data)
        if turn is None or not isinstance(response, ModelResponse):
            return None
        self._turns.pop(data["litellm_logging_obj"])
        if not response.choices[0].message.tool_calls:
            response.model = fallback_of(response) or response.model
            return None
        loop = self._loop(replace(turn, wants_usage=True, events=False), data, response, user_api_key_dict)
        answer = await self._collect(loop, turn, response)
        # Guardrails ran on round one before this hook: they must see what the client will get. The turn
        # is gone, so this does not come here again.
        return await proxy_server.proxy_logging_obj.post_call_success_hook(
            data=data, response=answer, user_api_key_dict=user_api_key_dict
        )

    async def _collect(self, loop: Loop, turn: Turn, first: ModelResponse) -> ModelResponse:
        try:
            async with aclosing(loop.run(as_stream(first))) as stream:
                chunks = [chunk async for chunk in stream]
        except (BundleError, CrawlError) as error:
            raise ChatRefusal(error, turn.call.request_id) from error
        answer = collected(chunks)
        answer.usage = chunks[-1].usage  # type: ignore[attr-defined]
        answer._hidden_params = first._hidden_params
        answer.model = fallback_of(first) or answer.model
        return answer

    async def _turn(self, principal: Principal, asked: Asked, data: dict[str, Any]) -> Turn | None:
        """Put our tools and instructions into the request; None where the caller may run no tool.

        Raises:
            InvalidRequest: The request cannot be combined with our tools.
            UnknownCollection, Forbidden: A collection that the client named.
        """
        parts = self._parts()
        profile = _profile(parts.config, asked)
        scope = await _scope(parts, principal, asked, profile)
        check_shape(data)
        schemas = parts.toolbox.schemas(principal, profile.tools)
        if not schemas:
            if asked.by_client:
                raise Forbidden("You may not run any of the tools that answer from documents.")
            return None
        offered = frozenset(schema["function"]["name"] for schema in schemas)
        own = client_tools(data, offered)
        data["tools"] = [*schemas, *(data.get("tools") or ())]
        data["messages"] = with_prompt(data["messages"], parts.prompt)
        stream = bool(data.get("stream"))
        options = data.get("stream_options") or {}
        wants_usage = options.get("include_usage") is True and not data.get("_litellm_strip_stream_usage")
        if stream:
            data["stream_options"] = {**options, "include_usage": True}
        call = Call(
            principal=principal,
            request_id=str(data.get("litellm_call_id", "")),
            deadline=time.monotonic() + parts.config.deadline_s,
            scope=scope,
        )
        return Turn(
            call=call,
            toolbox=parts.toolbox,
            config=parts.config,
            offered=offered,
            client_tools=frozenset(name for name in own if name is not None),
            foreign_tools=None in own,
            wants_usage=wants_usage,
            events=stream and asking.is_open_webui(data),
        )

    def _turn_of(self, data: dict[str, Any]) -> Turn | None:
        key = data.get("litellm_logging_obj")
        return None if key is None else self._turns.get(key)

    def _loop(self, turn: Turn, data: dict[str, Any], first: Any, auth: UserAPIKeyAuth) -> Loop:
        return Loop(turn, data["messages"], ask_again(data, fallback_of(first)), parallel_slot(auth))

    def _come_first(self) -> None:
        """Stand before all guardrails in LiteLLM's callbacks: a stream goes through them in this order."""
        if litellm.callbacks and litellm.callbacks[0] is not self and self in litellm.callbacks:
            litellm.callbacks.remove(self)
            litellm.callbacks.insert(0, self)


class ChatRefusal(Refusal):
    """A refusal that LiteLLM may also have to put into a stream."""

    def __init__(self, error: BundleError | CrawlError, request_id: str) -> None:
        super().__init__(cast("BundleError", error), request_id)  # the table of errors knows both families
        self.status_code = int(self.code)


def rag_of(model: Any) -> bool | str | None:
    """``model_info.rag`` of a model name of this proxy."""
    router = proxy_server.llm_router
    if router is None or not isinstance(model, str):
        return None
    for deployment in router.get_model_list(model_name=model) or ():
        rag = (deployment.get("model_info") or {}).get("rag")
        if rag:
            return rag if isinstance(rag, str) else True
    return None


def fallback_of(response: Any) -> str | None:
    """The model group that answered instead of the one that was asked; None where there was no fallback."""
    headers = (getattr(response, "_hidden_params", None) or {}).get("additional_headers") or {}
    return headers.get("x-litellm-model-group") if headers.get("x-litellm-attempted-fallbacks") else None


def ask_again(data: dict[str, Any], fallback: str | None) -> Ask:
    """Calls the router as LiteLLM did in the first round: same model, parameters, key.

    Where a fallback answered, it goes on; a ``tool_choice`` that forces a call counts for the first round.
    """
    kept = {k: v for k, v in data.items() if k not in OURS and not k.startswith("_litellm")}
    kept["model"] = fallback or kept["model"]
    kept["stream"] = True
    kept["stream_options"] = {"include_usage": True}
    kept["litellm_trace_id"] = data.get("litellm_trace_id") or data.get("litellm_call_id")
    choice = kept.pop("tool_choice", None)
    if choice == "auto":
        kept["tool_choice"] = choice

    async def ask(messages: list[dict[str, Any]], tools: bool) -> Any:
        router = proxy_server.llm_router
        if router is None:
            raise RuntimeError("the proxy has no router")
        request = {
            k: v for k, v in kept.items() if tools or k not in ("tools", "tool_choice", "parallel_tool_calls")
        }
        for name in ("metadata", "litellm_metadata"):
            if isinstance(request.get(name), dict):
                request[name] = dict(request[name])  # the router writes its own notes into it
        return await router.acompletion(**{**request, "messages": list(messages)})

    return ask


def check_shape(data: Mapping[str, Any]) -> None:
    """Whether our tools and instructions can be put into the request.

    Raises:
        InvalidRequest: Not into this one.
    """
    messages = data.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InvalidRequest("`messages` must be a list of messages", param="messages")
    if not isinstance(data.get("tools") or [], list):
        raise InvalidRequest("`tools` must be a list of tools", param="tools")
    if not isinstance(data.get("stream_options") or {}, dict):
        raise InvalidRequest("`stream_options` must be an object", param="stream_options")
    if (data.get("n") or 1) != 1:
        raise InvalidRequest("`n` must be 1 when documents are searched", param="n")


def client_tools(data: dict[str, Any], offered: frozenset[str]) -> list[str | None]:
    """Names of the client's own tools; None for one whose functions' names are not in the request.

    Raises:
        InvalidRequest: One is named as one of ours.
    """
    names: list[str | None] = []
    for index, tool in enumerate(data.get("tools") or ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        details = tool.get(kind) if isinstance(tool, dict) and kind in ("function", "custom") else None
        name = details.get("name") if isinstance(details, dict) else None
        if name in offered:
            raise InvalidRequest(
                f"`{name}` is a tool of this server. Rename yours, or ask without `file_search` and `rag`.",
                param=f"tools.{index}.{kind}.name",
            )
        names.append(name)
    return names


def with_prompt(messages: Sequence[dict[str, Any]], prompt: str) -> list[dict[str, Any]]:
    """The messages with our instructions first, in one system message with the client's where it leads."""
    if messages and messages[0].get("role") in ("system", "developer"):
        first, rest = messages[0], messages[1:]
        content = first.get("content")
        merged: Any = f"{prompt}\n\n{content}"
        if isinstance(content, list):
            merged = [{"type": "text", "text": prompt}, *content]
        return [{**first, "content": merged}, *rest]
    return [{"role": "system", "content": prompt}, *messages]


def _profile(config: ChatConfig, asked: Asked) -> Profile:
    name = asked.profile or "default"
    if name in config.profiles:
        return config.profiles[name]
    if name == "default":
        return Profile()
    raise BundleError(
        f"The model's profile `{name}` is not configured. Tell the operator: it belongs in config/chat.yaml."
    )


async def _scope(parts: ChatParts, principal: Principal, asked: Asked, profile: Profile) -> Scope:
    """What searches are narrowed to. What the client names must all be allowed; of what the model's
    profile names, the rest is left out."""
    collections: frozenset[str] | None = None
    if asked.collections is not None:
        try:
            found = await parts.queryable(principal, asked.collections)
        except BundleError as error:
            error.param = error.param or asked.param
            raise
        collections = frozenset(collection_id for collection_id, _ in found)
    elif profile.collections is not None:
        ids = [await _allowed(parts.queryable, principal, name) for name in profile.collections]
        collections = frozenset(collection_id for collection_id in ids if collection_id is not None)
    return Scope(
        collections=collections,
        filters=asked.filters,
        max_num_results=asked.max_num_results or profile.max_num_results,
    )


async def _allowed(queryable: Queryable, principal: Principal, name: str) -> str | None:
    try:
        return (await queryable(principal, [name]))[0][0]
    except (UnknownCollection, Forbidden):
        return None
