"""Searching before the model is asked, for models that do not call functions or are not left to decide.

The search is the tool `search_documents`, run as the caller: rights, scope, filters and limits are the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from litellm.proxy import proxy_server
from litellm.types.utils import ModelResponse

from plugins.core.chat_config import Mode, Profile
from plugins.proxy.caches import UNCACHED, count
from plugins.proxy.capabilities import Capabilities
from plugins.proxy.context_window import SEARCHED, last_user
from plugins.proxy.loop import Turn
from plugins.proxy.offers import SEARCH
from plugins.proxy.tool_calls import Ran, ToolCalls

log = logging.getLogger(__name__)

MAX_QUESTION = 8000
"""Characters of a question that are searched for: what the tool takes."""
CONDENSE_S = 15.0
"""Seconds for making one question of a conversation."""
CONDENSED_TOKENS = 300
MAX_EARLIER = 8
"""Messages before the question that are read for it."""
MAX_EARLIER_CHARS = 2000
"""Of each of them."""
PAID_BY = ("metadata", "litellm_metadata", "user", "litellm_trace_id")
"""What makes a call the caller's in LiteLLM's logs, limits and spend."""


async def mode_of(
    capabilities: Capabilities, asked: Mode | None, profile: Profile, model: Any, *, can_search: bool
) -> Mode:
    """How the model comes to passages.

    Args:
        capabilities: What models can do.
        asked: By the request; it counts before the profile's.
        profile: The model's.
        model: Its name in this proxy.
        can_search: Whether the caller may run the search; else there is nothing to do beforehand.
    """
    mode = asked or profile.mode
    if not can_search:
        return "tool"
    if mode in ("auto", "always") and not await capabilities.calls_functions(model):
        return "context"
    return "tool" if mode == "auto" else mode


async def search(turn: Turn, question: str) -> Ran:
    """Run the search for the question; what fails is in words for the model, as with any tool."""
    calls = ToolCalls(turn.toolbox, turn.call, turn.config, turn.budget, frozenset({SEARCH}), turn.citations)
    arguments = json.dumps({"query": question[:MAX_QUESTION]}, ensure_ascii=False)
    [ran] = await calls.run([{"id": SEARCHED, "function": {"name": SEARCH, "arguments": arguments}}])
    turn.tools.continue_from(calls)
    return replace(ran, id=SEARCHED)


async def question_of(
    data: Mapping[str, Any],
    model: str,
    prompt: str,
    deadline: float,
    cache: Mapping[str, Any] = UNCACHED,
) -> str:
    """The last question, such that it can be understood without what was said before.

    That is asked of a model where there are earlier turns; where it fails or takes too long, the question
    is as the user wrote it. Empty where there is none in words.

    Args:
        data: The request.
        model: The model that is asked for it, at the caller's expense.
        prompt: What it is told to do; where it is empty, it is not asked.
        deadline: In seconds of ``time.monotonic()``.
        cache: LiteLLM's ``cache`` of that.
    """
    messages = data["messages"]
    at = last_user(messages)
    question = "" if at is None else words(messages[at]).strip()
    earlier = _transcript(messages[:at])
    if not (question and earlier and prompt):
        return question
    request = {name: data[name] for name in PAID_BY if name in data}
    for name in ("metadata", "litellm_metadata"):
        if isinstance(request.get(name), dict):
            request[name] = dict(request[name])  # the router writes its own notes into it
    told = f"{earlier}\n\nThe last question:\n{question[:MAX_QUESTION]}"
    try:
        async with asyncio.timeout(min(CONDENSE_S, deadline - time.monotonic())):
            response = await _router().acompletion(
                model=model,
                messages=[{"role": "system", "content": prompt}, {"role": "user", "content": told}],
                max_tokens=CONDENSED_TOKENS,
                cache=dict(cache),
                **request,
            )
    except Exception as error:  # noqa: BLE001 - whatever a provider raises, the question itself is searched
        log.warning("no question was made of the conversation (%s)", type(error).__name__)
        return question
    count(response, cache)
    condensed = response.choices[0].message.content if isinstance(response, ModelResponse) else None
    return (condensed or "").strip() or question


def words(message: Mapping[str, Any]) -> str:
    """The text of a message, without its images, sounds and files."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    """The last of what was said; tools' results are left out."""
    said = [
        (str(message.get("role")).capitalize(), text)
        for message in messages
        if message.get("role") in ("user", "assistant") and (text := words(message).strip())
    ]
    return "\n\n".join(f"{role}: {text[:MAX_EARLIER_CHARS]}" for role, text in said[-MAX_EARLIER:])


def _router() -> Any:
    router = proxy_server.llm_router
    if router is None:
        raise RuntimeError("the proxy has no router")
    return router
