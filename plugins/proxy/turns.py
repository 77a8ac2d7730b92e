"""What a chat request becomes where our tools take part: who may search what, which tools are offered."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from litellm.proxy import proxy_server

from plugins.core.config import ChatConfig, Profile
from plugins.core.errors import BundleError, Forbidden, InvalidRequest, UnknownCollection
from plugins.core.identity import Principal
from plugins.core.ports import Call, Scope
from plugins.core.toolbox import Toolbox
from plugins.proxy.asked import Asked
from plugins.proxy.budgets import Budgets
from plugins.proxy.loop import Turn

Queryable = Callable[[Principal, Sequence[str]], Awaitable[list[tuple[str, str]]]]
"""(id, name) of each of the collections (ids or names) that the principal may query.

Raises UnknownCollection or Forbidden for the first one that may not be queried.
"""


@dataclass(frozen=True, slots=True)
class ChatParts:
    """What the hooks need.

    Args:
        toolbox: All tools.
        queryable: The check of `query`.
        config: The rounds, limits and profiles.
        prompt: The system message that tells a model how to cite.
        sources: Names of the identity sources, which the subjects of budgets are of.
    """

    toolbox: Toolbox
    queryable: Queryable
    config: ChatConfig
    prompt: str
    sources: Collection[str] = ()
    budgets: Budgets = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "budgets", Budgets(self.config, self.sources))


async def begin(parts: ChatParts, principal: Principal, asked: Asked, data: dict[str, Any]) -> Turn | None:
    """Put our tools and instructions into the request; None where the caller may run no tool.

    Raises:
        InvalidRequest: The request cannot be combined with our tools.
        UnknownCollection, Forbidden: A collection that the client named.
    """
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
    budget = parts.budgets.of(principal)
    call = Call(
        principal=principal,
        request_id=str(data.get("litellm_call_id", "")),
        deadline=time.monotonic() + budget.deadline_s,
        scope=scope,
    )
    return Turn(
        call=call,
        toolbox=parts.toolbox,
        config=parts.config,
        budget=budget,
        offered=offered,
        client_tools=frozenset(name for name in own if name is not None),
        foreign_tools=None in own,
        structured=structured_output(data),
    )


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


def structured_output(data: dict[str, Any]) -> dict[str, Any] | None:
    """Take the ``response_format`` out of the request: it is for the answer, not for rounds with our tools.

    https://platform.openai.com/docs/guides/structured-outputs
    """
    wanted = data.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") == "text":
        return None
    del data["response_format"]
    return wanted


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
