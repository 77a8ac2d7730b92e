"""`local/extractive`: answers questions with sentences of documents. It is not a language model.

Offered the tool `search_documents`, it calls it with the user's question; given passages, by the tool or in
front of the question, it quotes the sentences that share the most words with the question, each followed by
its ``[n]``. The same input gives
the same answer. One token is one word.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from litellm.llms.custom_llm import CustomLLM
from litellm.types.utils import (
    ChatCompletionMessageToolCall,
    Function,
    GenericStreamingChunk,
    ModelResponse,
    Usage,
)

from plugins.models._quotes import quotes

SEARCH = "search_documents"
SEARCHED = "\n</documents>\n\n"
"""Between what was searched before it was asked, and the question."""
MAX_QUERY = 2000
"""Characters of the question that are searched for."""
MAX_RESULTS = 200_000
"""Characters of the tools' answers that are read; clients may send such messages of any length."""

NOTHING = "I found nothing about this in the documents that you may query."
FAILED = "Error: "
"""How the text of a tool that failed begins."""
CONNECT = (
    "I am not a language model: I only quote documents, and this request offers me none to search. "
    "Ask a model that has documents, or connect a language model: run Ollama, set OLLAMA_BASE_URL and "
    "CHAT_MODEL in `.env`, and start the proxy again."
)
PLACE = re.compile(r"\[(\d{1,4})\] (.*)")
FENCE = re.compile(r"(`{3,})passage")


class Extractive(CustomLLM):
    """The chat model; `reply` decides, the two methods put the reply in LiteLLM's shapes."""

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        text, call = await asyncio.to_thread(reply, kwargs["messages"], kwargs["optional_params"])
        response: ModelResponse = kwargs["model_response"]
        choice: Any = response.choices[0]
        choice.message.content = text or None
        choice.finish_reason = "stop"
        if call:
            choice.message.tool_calls = [
                ChatCompletionMessageToolCall(
                    id=call["id"], type="function", function=Function(**call["function"])
                )
            ]
            choice.finish_reason = "tool_calls"
        response.created = int(time.time())
        response.model = kwargs["model"]
        response.usage = usage(kwargs["messages"], text)  # type: ignore[attr-defined]
        return response

    async def astreaming(  # type: ignore[override]  # LiteLLM iterates over what this returns, un-awaited
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[GenericStreamingChunk]:
        text, call = await asyncio.to_thread(reply, kwargs["messages"], kwargs["optional_params"])
        for token in re.findall(r"\s*\S+", text):
            yield chunk(text=token)
            await asyncio.sleep(0)  # let other requests have their turn
        if call:
            yield chunk(tool=call)
        yield chunk(
            finish="tool_calls" if call else "stop", usage=usage(kwargs["messages"], text).model_dump()
        )


def reply(
    messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]
) -> tuple[str, dict[str, Any] | None]:
    """The text or the tool call that answers the messages."""
    asked = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    question = plain_text(messages[asked].get("content")) if asked >= 0 else ""
    searched, _, question = question.rpartition(SEARCHED)
    results = [plain_text(m.get("content")) for m in messages[asked + 1 :] if m["role"] == "tool"]
    if searched:
        results.insert(0, searched)
    if results:
        found = list(passages("\n\n".join(results)[:MAX_RESULTS]))
        failed = next((result for result in results if result.startswith(FAILED)), NOTHING)
        return quotes(question[:MAX_QUERY], found) or failed[:MAX_QUERY], None
    name = search_tool(params)
    if name is None or not question.strip():
        return CONNECT, None
    arguments = json.dumps({"query": question.strip()[:MAX_QUERY]}, ensure_ascii=False)
    # The same conversation gives the same id, another turn another one.
    digest = hashlib.sha256(f"{len(messages)} {arguments}".encode()).hexdigest()[:24]
    function = {"name": name, "arguments": arguments}
    return "", {"id": f"call_{digest}", "type": "function", "index": 0, "function": function}


def passages(text: str) -> Iterator[tuple[int, str, str]]:
    """Number, place and markdown of each passage, as `plugins.core.passages.render` writes them.

    Line by line: a regular expression over the whole text would take the square of its length.
    """
    lines = text.split("\n")
    index = 0
    while index + 1 < len(lines):
        place, fence = PLACE.fullmatch(lines[index]), FENCE.match(lines[index + 1])
        index += 1
        if place is None or fence is None:
            continue
        try:
            end = lines.index(fence[1], index + 1)
        except ValueError:
            return  # cut off: what follows cannot be told from the passage
        yield int(place[1]), place[2], "\n".join(lines[index + 1 : end])
        index = end + 1


def search_tool(params: Mapping[str, Any]) -> str | None:
    """The tool to call: `search_documents`, or the one that ``tool_choice`` demands, if it takes a query."""
    choice = params.get("tool_choice")
    if choice == "none":
        return None
    wanted = choice["function"]["name"] if isinstance(choice, dict) and "function" in choice else SEARCH
    for tool in params.get("tools") or ():
        function = tool.get("function") or {}
        properties = (function.get("parameters") or {}).get("properties") or {}
        if function.get("name") == wanted and "query" in properties:
            return str(wanted)
    return None


def plain_text(content: Any) -> str:
    """A message's content, which may be a list of parts, as text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def usage(messages: Sequence[Mapping[str, Any]], text: str) -> Usage:
    prompt = sum(len(plain_text(message.get("content")).split()) for message in messages)
    completion = len(text.split())
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def chunk(
    text: str = "",
    *,
    tool: dict[str, Any] | None = None,
    finish: str = "",
    usage: Any = None,
) -> GenericStreamingChunk:
    return GenericStreamingChunk(
        text=text,
        tool_use=tool,  # type: ignore[typeddict-item]  # LiteLLM reads it as a plain dictionary
        is_finished=bool(finish),
        finish_reason=finish,
        usage=usage,
        index=0,
    )
