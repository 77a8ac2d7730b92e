"""The one loop: the model speaks, our tools run, the model speaks again, until it is done.

It is an async generator over the first round's stream, which LiteLLM has already begun. A plain answer is
what it yields, collected. No timeout, task group or context variable spans a `yield`: with keep-alive
pings LiteLLM runs each step of a generator in a task of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from litellm.exceptions import (
    BadRequestError,
    ContextWindowExceededError,
    RateLimitError,
    Timeout,
)
from litellm.types.utils import ModelResponseStream, Usage

from plugins.core.config import ChatConfig
from plugins.core.errors import (
    BundleError,
    DeadlineExceeded,
    InvalidRequest,
    LimitReached,
    ModelUnavailable,
    ToolFailed,
    ToolRetry,
)
from plugins.core.passages import render
from plugins.core.ports import Call, ToolResult
from plugins.core.toolbox import Toolbox
from plugins.proxy.chunks import Round, close, make_chunk, make_event, total
from plugins.proxy.citations import Citations, Renumber, status_event

Chunks = AsyncIterator[ModelResponseStream]
Ask = Callable[[list[dict[str, Any]], bool], Awaitable[Chunks]]
"""Calls the model again: with the messages so far, and whether tools are offered."""

NO_RESULT = "Nothing was found."
MAX_SHOWN = 120
"""Characters of a query in a status line."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One chat request that our tools take part in."""

    call: Call
    toolbox: Toolbox
    config: ChatConfig
    offered: frozenset[str]
    """Names of our tools that the model was offered."""
    client_tools: frozenset[str] = frozenset()
    """Names of the client's own."""
    foreign_tools: bool = False
    """The client offers tools whose names cannot be known beforehand (an MCP server's, a provider's)."""
    wants_usage: bool = False
    """The client asked for a usage chunk."""
    events: bool = False
    """Sources as Open WebUI's events instead of annotations."""
    citations: Citations = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "citations", Citations(self.config.public_base_url))

    def is_client(self, tool: str) -> bool:
        """Whether the client is to run it. A name that nobody offered is answered here, to the model."""
        return tool in self.client_tools or (self.foreign_tools and tool not in self.offered)


class Loop:
    """The state of one answer.

    Args:
        turn: The request.
        messages: As they were sent in the first round.
        ask: Calls the model for the later rounds.
        slot: Entered when the first round is over and tools are to run, left when the answer ends.
    """

    def __init__(
        self,
        turn: Turn,
        messages: Sequence[dict[str, Any]],
        ask: Ask,
        slot: AbstractAsyncContextManager[None] | None = None,
    ) -> None:
        self._turn = turn
        self._messages = list(messages)
        self._ask = ask
        self._slot = slot or nullcontext()
        self._renumber = Renumber(turn.citations.__contains__) if turn.events else None
        self._text: list[str] = []
        self._usage: Usage | None = None
        self._id = ""
        self._created = 0
        self._model: str | None = None
        self._hidden: dict[str, Any] = {}
        self._begun = False
        self._new_round = False

    async def run(self, first: Chunks) -> AsyncGenerator[ModelResponseStream, None]:
        """The client's stream.

        Raises:
            BundleError: A later round's model, or the deadline. What the first round's stream raises is
                LiteLLM's own and passes as it is.
        """
        async with AsyncExitStack() as held:
            stream = first
            for number in count(1):
                current = Round(self._turn.is_client)
                try:
                    while (chunk := await self._next(stream, own=number > 1)) is not None:
                        self._identify(chunk, stream)
                        if given := self._shown(current.take(chunk)):
                            yield self._like(chunk, self._chunk(given))
                finally:
                    if number > 1:  # the first is LiteLLM's to close
                        await close(stream)
                self._usage = total(self._usage, current.usage)
                if number > self._turn.config.max_rounds or current.client_calls or not current.own_calls:
                    break
                if number == 1:
                    await held.enter_async_context(self._slot)
                if self._turn.events:
                    yield self._announce(current, done=False)
                await self._run_tools(current)
                if self._turn.events:
                    yield self._announce(current, done=True)
                stream = await self._ask_again(number < self._turn.config.max_rounds)
                self._new_round = True
            for last in self._ending(current):
                yield last

    async def _next(self, stream: Chunks, *, own: bool) -> ModelResponseStream | None:
        """The next chunk; None at the end."""
        try:
            async with asyncio.timeout(self._seconds_left()) as limit:
                return await anext(stream, None)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise DeadlineExceeded from error
            if not own:
                raise
            raise public(error) from error

    async def _ask_again(self, tools: bool) -> Chunks:
        try:
            async with asyncio.timeout(self._seconds_left()) as limit:
                return await self._ask(self._messages, tools)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise DeadlineExceeded from error
            raise public(error) from error

    def _seconds_left(self) -> float:
        return max(0.0, self._turn.call.deadline - time.monotonic())

    async def _run_tools(self, current: Round) -> None:
        """Run a round's calls, some at once, and add them and their answers to the conversation."""
        message = current.message().model_dump(exclude_none=True)
        calls = message.get("tool_calls") or []
        some = asyncio.Semaphore(self._turn.config.max_parallel_tools)

        async def run(call: dict[str, Any]) -> ToolResult | str:
            function = call.get("function") or call["custom"]
            async with some:
                return await self._result(function["name"], function.get("arguments", ""))

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(call)) for call in calls]
        self._messages.append({"content": None, **message})
        for call, task in zip(calls, tasks, strict=True):
            text = self._told(task.result())
            self._messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})

    async def _result(self, name: str, arguments: str) -> ToolResult | str:
        """What a tool found, or in words for the model why it did not."""
        turn = self._turn
        if name not in turn.offered:
            return f"There is no tool `{name}`; there are: {', '.join(sorted(turn.offered))}."
        try:
            return await turn.toolbox.run_for_model(name, arguments, turn.call, turn.config.tool_timeout_s)
        except (ToolRetry, ToolFailed) as error:
            return f"Error: {error}"

    def _told(self, result: ToolResult | str) -> str:
        if isinstance(result, str):
            return result
        text = result.text or (
            json.dumps(result.structured, ensure_ascii=False, default=str)
            if result.structured and not result.passages
            else ""
        )
        if result.passages:
            passages = render(result.passages, self._turn.citations.number(result.passages))
            text = f"{text}\n\n{passages}" if text else passages
        return text or NO_RESULT

    def _identify(self, chunk: ModelResponseStream, stream: Chunks) -> None:
        """One id and one model for all rounds: those of the round in which the client sees something."""
        if not self._id:
            self._id, self._created = chunk.id, chunk.created
        if not self._begun:
            self._model = chunk.model
            self._hidden = {**getattr(stream, "_hidden_params", {}), **getattr(chunk, "_hidden_params", {})}

    def _shown(self, delta: dict[str, Any]) -> dict[str, Any]:
        """The delta as the client gets it, its text rewritten and remembered."""
        content = delta.get("content")
        if isinstance(content, str):
            if self._new_round and self._text and not self._text[-1].endswith(("\n", " ")):
                content = f"\n\n{content.lstrip()}"
            self._new_round = False
            if self._renumber is not None:
                content = self._renumber.feed(content)
            delta = {**delta, "content": content}
            if not content:
                del delta["content"]
            else:
                self._text.append(content)
        return delta

    def _chunk(
        self, delta: dict[str, Any] | None, finish_reason: str | None = None, usage: Usage | None = None
    ) -> ModelResponseStream:
        if delta is not None and not self._begun:
            delta = {"role": "assistant", **delta}
            self._begun = True
        chunk = make_chunk(
            self._id, self._created, delta, model=self._model, finish_reason=finish_reason, usage=usage
        )
        chunk._hidden_params = self._hidden
        return chunk

    @staticmethod
    def _like(chunk: ModelResponseStream, shown: ModelResponseStream) -> ModelResponseStream:
        """With what stands in a chunk beside its delta."""
        if chunk.system_fingerprint is not None:
            shown.system_fingerprint = chunk.system_fingerprint
        if (logprobs := getattr(chunk.choices[0], "logprobs", None)) is not None:
            shown.choices[0].logprobs = logprobs
        return shown

    def _event(self, content: dict[str, Any]) -> ModelResponseStream:
        return make_event(self._id, self._created, content, model=self._model)

    def _announce(self, current: Round, *, done: bool) -> ModelResponseStream:
        calls = dict.fromkeys(described(name, arguments) for name, arguments in current.calls)
        return self._event(status_event("; ".join(calls), done=done))

    def _ending(self, last: Round) -> list[ModelResponseStream]:
        """Citations, the finish chunk and the usage."""
        chunks: list[ModelResponseStream] = []
        if self._renumber is not None:
            if rest := self._renumber.rest():
                chunks.append(self._chunk({"content": rest}))
            chunks += [
                self._event(self._turn.citations.source_event(number)) for number in self._renumber.order
            ]
        else:
            text = "".join(self._text)
            if annotations := self._turn.citations.annotations(text):
                found = {"search_results": self._turn.citations.search_results(text)}
                chunks.append(self._chunk({"annotations": annotations, "provider_specific_fields": found}))
        reason = last.finish_reason or "stop"
        if last.client_calls:
            reason = "tool_calls"
        elif reason in ("tool_calls", "function_call"):
            reason = "stop"
        chunks.append(self._chunk({}, finish_reason=reason))
        if self._turn.wants_usage:
            chunks.append(self._chunk(None, usage=self._usage or Usage()))
        return chunks


def described(tool: str, arguments: str) -> str:
    """A call in words for Open WebUI's users."""
    try:
        query = json.loads(arguments or "{}").get("query")
    except (ValueError, AttributeError):
        query = None
    return f"Searching: {query[:MAX_SHOWN]}" if isinstance(query, str) else f"Running {tool}"


def public(error: Exception) -> BundleError:
    """A later round's error in words that name no host, path or key; the cause is for the log."""
    if isinstance(error, BundleError):
        return error
    if isinstance(error, RateLimitError):
        return LimitReached("The model's rate limit is reached. Try again later.")
    if isinstance(error, Timeout | TimeoutError):
        return DeadlineExceeded("The model took too long to answer.")
    if isinstance(error, ContextWindowExceededError):
        return InvalidRequest(
            "What was found and the conversation together are too long for this model. Start a new chat, ask "
            "for fewer passages, or choose a model with a larger context."
        )
    if isinstance(error, BadRequestError):
        return InvalidRequest("The model refused the request after tools had run. Try another model.")
    return ModelUnavailable()
