"""The one loop: the model speaks, our tools run, the model speaks again, until it is done.

It is an async generator over the first round's stream, which LiteLLM has already begun. What it yields is
made into what each client takes by the modules of `plugins.proxy.apis`; a plain answer is that stream,
collected. No timeout, task group or context variable spans a `yield`: with keep-alive pings LiteLLM runs
each step of a generator in a task of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from litellm.types.utils import ModelResponseStream, Usage

from plugins.core.config import ChatConfig
from plugins.core.errors import DeadlineExceeded
from plugins.core.ports import Call, Passage
from plugins.core.toolbox import Toolbox
from plugins.proxy.chunks import Round, close, make_chunk, total
from plugins.proxy.citations import Citations, CitedText, Span
from plugins.proxy.tool_calls import Ran, ToolCalls
from plugins.proxy.upstream import Ask, Chunks, public


@dataclass(frozen=True, slots=True)
class Activity:
    """Our tools at work, before (`done` false) and after."""

    chunk: ModelResponseStream
    """Empty, with the answer's id and model: what a client is told of this goes out in its likeness."""
    calls: tuple[Ran, ...]
    done: bool


@dataclass(frozen=True, slots=True)
class Sources:
    """What the answer rests on; after its text, before its finish chunk. Only where it cites something."""

    chunk: ModelResponseStream
    cited: tuple[Passage, ...]
    """The first is ``[1]`` in the client's text."""
    annotations: list[dict[str, Any]]
    """OpenAI's `url_citation`s, exact for the client's text."""
    search_results: list[dict[str, Any]]
    spans: tuple[Span, ...] = ()
    """Where the client's text cites what, in characters over all rounds."""


Output = ModelResponseStream | Activity | Sources


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
        self._tools = ToolCalls(turn.toolbox, turn.call, turn.config, turn.offered, turn.citations)
        self._text = CitedText(turn.citations)
        self._usage: Usage | None = None
        self._id = ""
        self._created = 0
        self._model: str | None = None
        self._hidden: dict[str, Any] = {}
        self._begun = False
        self._new_round = False

    async def run(self, first: Chunks) -> AsyncGenerator[Output, None]:
        """The answer: chunks of one id, one finish chunk, then one with the sum of the usage.

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
                message = current.message().model_dump(exclude_none=True)
                calls = message.get("tool_calls") or []
                yield Activity(self._chunk(None), self._tools.planned(calls), done=False)
                ran = await self._tools.run(calls)
                self._messages.append({"content": None, **message})
                self._messages += [call.message for call in ran]
                yield Activity(self._chunk(None), ran, done=True)
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
            if self._new_round and self._text.ends_in_a_word:
                content = f"\n\n{content.lstrip()}"
            self._new_round = False
            delta = {**delta, "content": self._text.feed(content)}
            if not delta["content"]:
                del delta["content"]
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

    def _ending(self, last: Round) -> list[Output]:
        """What was held back of the text, its sources, the finish chunk and the usage."""
        outputs: list[Output] = []
        if rest := self._text.rest():
            outputs.append(self._chunk({"content": rest}))
        if cited := self._text.cited:
            citations = self._turn.citations
            outputs.append(
                Sources(
                    self._chunk(None),
                    cited,
                    citations.annotations(cited, self._text.spans),
                    citations.search_results(cited),
                    tuple(self._text.spans),
                )
            )
        reason = last.finish_reason or "stop"
        if last.client_calls:
            reason = "tool_calls"
        elif reason in ("tool_calls", "function_call"):
            reason = "stop"
        return [
            *outputs,
            self._chunk({}, finish_reason=reason),
            self._chunk(None, usage=self._usage or Usage()),
        ]
