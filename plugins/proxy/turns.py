"""What a chat request becomes where our tools take part: who may search what, which tools are offered."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from litellm.proxy import proxy_server

from crawler.errors import CrawlError
from crawler.store import Filter
from plugins.collections.exchanges import ExchangeLog
from plugins.core.chat_config import ChatConfig, Profile
from plugins.core.errors import BundleError, Forbidden, InvalidRequest
from plugins.core.identity import Principal
from plugins.core.metrics import refused
from plugins.core.ports import Call, QueryableCollection, Scope
from plugins.core.shapes import RankingOptions
from plugins.core.toolbox import Toolbox
from plugins.proxy.asked import Asked, drop_empty_tools, is_file_search
from plugins.proxy.budgets import Budgets
from plugins.proxy.caches import State, control
from plugins.proxy.capabilities import Capabilities, max_input_tokens
from plugins.proxy.context_window import Window
from plugins.proxy.loop import Turn
from plugins.proxy.offers import SEARCH, offered
from plugins.proxy.retrieval import mode_of, question_of, search

Queryable = Callable[[Principal, Sequence[str] | None], Awaitable[list[QueryableCollection]]]
"""The collections (ids or names; None = all) that the principal may query.

Raises UnknownCollection or Forbidden for the first named one that may not be queried.
"""


@dataclass(frozen=True, slots=True)
class ChatParts:
    """What the hooks need.

    Args:
        toolbox: All tools.
        queryable: The check of `query`.
        config: The rounds, limits and profiles.
        prompt: The system message that tells a model how to search and to cite.
        sources: Names of the identity sources, which the subjects of budgets are of.
        context_prompt: The one for a model that is given passages and cannot search.
        condense_prompt: The one that makes one question of a conversation; empty = that is not done.
        check_filter: Raises FilterError for one that searches cannot use.
        state: What a principal may read, and how it stands; without it no answer is cached.
        exchanges: Where requests and answers are kept, where they are.
    """

    toolbox: Toolbox
    queryable: Queryable
    config: ChatConfig
    prompt: str
    sources: Collection[str] = ()
    context_prompt: str = ""
    condense_prompt: str = ""
    check_filter: Callable[[Filter], None] | None = None
    state: State | None = None
    exchanges: ExchangeLog | None = None
    capabilities: Capabilities = field(default_factory=Capabilities)
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
    collections, scope = await _scope(parts, principal, asked, profile)
    check_shape(data)
    config = parts.config
    schemas = offered(parts.toolbox, principal, profile.tools, collections, config.max_description_tokens)
    if not schemas:
        if asked.by_client:
            message = "You may not run any of the tools that answer from documents."
            raise refused("tool", Forbidden(message))
        return None
    can_search = any(schema["function"]["name"] == SEARCH for schema in schemas)
    model = data.get("model")
    mode = await mode_of(parts.capabilities, asked.mode, profile, model, can_search=can_search)
    if mode == "context":
        schemas = []
    names = frozenset(schema["function"]["name"] for schema in schemas)
    own = client_tools(data, names)
    offer(data, schemas)
    check_choice(data, names, own)
    messages = data["messages"]
    budget = parts.budgets.of(principal)
    asks = profile.condense_model or str(model)
    turn = Turn(
        call=Call(
            principal=principal,
            request_id=str(data.get("litellm_call_id", "")),
            deadline=time.monotonic() + budget.deadline_s,
            scope=scope,
        ),
        toolbox=parts.toolbox,
        config=config,
        budget=budget,
        offered=names,
        client_tools=frozenset(name for name in own if name is not None),
        foreign_tools=None in own,
        structured=structured_output(data, keep=not names),
        window=Window(max_input_tokens(model), answer_tokens(data), data.get("tools") or ()),
        cache=await control(parts.state, principal, scope, data, (str(model), asks)),
    )
    turn.citations.begin_above(messages)
    if mode != "tool":
        question = await question_of(data, asks, parts.condense_prompt, turn.call.deadline, turn.cache)
        if question:
            turn.searched.append(await search(turn, question))
    prompt = parts.context_prompt if mode == "context" else parts.prompt
    data["messages"] = await turn.fit(with_prompt(messages, prompt))
    return turn


def offer(data: dict[str, Any], schemas: Sequence[dict[str, Any]]) -> None:
    """Put our tools before the client's. A choice of the search is that of our tool, where it is offered."""
    data["tools"] = [*schemas, *(data.get("tools") or ())]
    choice = data.get("tool_choice")
    forced = {"type": "function", "function": {"name": SEARCH}}
    if is_file_search(choice) or choice == forced:
        data["tool_choice"] = forced
        if all(schema["function"]["name"] != SEARCH for schema in schemas):
            del data["tool_choice"]
    drop_empty_tools(data)


def answer_tokens(data: Mapping[str, Any]) -> int | None:
    """How long the answer may be, where the request says so."""
    said = data.get("max_completion_tokens") or data.get("max_tokens")
    return said if isinstance(said, int) and said > 0 else None


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
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(message, dict) for message in messages)
    ):
        raise InvalidRequest("`messages` must be a list of at least one message", param="messages")
    if not isinstance(data.get("tools") or [], list):
        raise InvalidRequest("`tools` must be a list of tools", param="tools")
    if not isinstance(data.get("stream_options") or {}, dict):
        raise InvalidRequest("`stream_options` must be an object", param="stream_options")
    if "," in str(data.get("model")):  # LiteLLM would ask each of them
        raise InvalidRequest("`model` must be one model when documents are searched", param="model")
    if (data.get("n") or 1) != 1:
        raise InvalidRequest("`n` must be 1 when documents are searched", param="n")


def structured_output(data: dict[str, Any], *, keep: bool = False) -> dict[str, Any] | None:
    """Take the ``response_format`` out of the request: it is for the answer, not for rounds with our tools.

    Args:
        data: The request.
        keep: Leave it there: there are no such rounds.

    https://platform.openai.com/docs/guides/structured-outputs
    """
    wanted = data.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") == "text":
        return None
    if not keep:
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


def check_choice(data: Mapping[str, Any], offered: frozenset[str], own: Sequence[str | None]) -> None:
    """Whether the function that the model is to call is one that it is offered.

    Raises:
        InvalidRequest: It is not.
    """
    choice = data.get("tool_choice")
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if isinstance(name, str) and name not in offered and name not in own and None not in own:
        raise InvalidRequest(f"tool_choice: there is no tool `{name[:100]}`", param="tool_choice")


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


async def _scope(
    parts: ChatParts, principal: Principal, asked: Asked, profile: Profile
) -> tuple[list[QueryableCollection], Scope]:
    """What can be searched, and what searches are narrowed to. What the client names must all be allowed;
    of what the model's profile names, the rest is left out."""
    names = profile.collections
    try:
        found = await parts.queryable(principal, asked.collections)
    except BundleError as error:
        error.param = error.param or asked.param
        raise
    except CrawlError:
        if asked.collections is not None:
            raise
        # A store that is away, or refuses the caller: each search says so, in words for the model.
        return [], _narrowed(asked, profile, None if names is None else frozenset(names))
    if asked.filters is not None and parts.check_filter is not None:
        parts.check_filter(asked.filters)
    narrowed = asked.collections is not None
    if not narrowed and names is not None:
        narrowed = True
        found = [collection for collection in found if collection.id in names or collection.name in names]
    ids = frozenset(collection.id for collection in found) if narrowed else None
    return found, _narrowed(asked, profile, ids)


def _narrowed(asked: Asked, profile: Profile, collections: frozenset[str] | None) -> Scope:
    return Scope(
        collections=collections,
        filters=asked.filters,
        max_num_results=asked.max_num_results or profile.max_num_results,
        ranking_options=asked.ranking_options or RankingOptions(),
    )
