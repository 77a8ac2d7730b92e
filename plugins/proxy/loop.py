"""The one loop: the model speaks, our tools run, the model speaks again, until it is done.

It is an async generator over the first round's stream, which LiteLLM has already begun. What it yields is
made into what each client takes by the modules of `plugins.proxy.apis`; a plain answer is that stream,
collected. No timeout, task group or context variable spans a `yield`: with keep-alive pings LiteLLM runs
each step of a generator in a task of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from litellm.types.utils import ModelResponseStream, Usage

from plugins.core.chat_config import Budget, ChatConfig
from plugins.core.errors import DeadlineExceeded
from plugins.core.metrics import answered
from plugins.core.ports import Call, Passage
from plugins.core.toolbox import Toolbox
from plugins.proxy.caches import UNCACHED
from plugins.proxy.chunks import Round, close, copy_logprobs, logprobs_of, make_chunk, total
from plugins.proxy.citations import Citations, CitedText, Span
from plugins.proxy.context_window import Window
from plugins.proxy.handover import Called, ids_of, with_trace
from plugins.proxy.tool_calls import Limit, Ran, ToolCalls
from plugins.proxy.tracing import ChatSpans
from plugins.proxy.upstream import Ask, Chunks, fallback_of, public


@dataclass(frozen=True, slots=True)
class Activity:
    """Our tools at work, before (`done` false) and after."""

    chunk: ModelResponseStream
    """Empty, with the answer's id and model: what a client is told of this goes out in its likeness."""
    calls: tuple[Ran, ...]
    done: bool
    words: tuple[str, ...]
    """What they do, for the user; each once."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the answer rests on; after its text, before its finish chunk. Only where there is something."""

    chunk: ModelResponseStream
    cited: tuple[Passage, ...]
    """The first is ``[1]`` in the client's text."""
    annotations: list[dict[str, Any]]
    """OpenAI's `url_citation`s, exact for the client's text."""
    search_results: list[dict[str, Any]]
    spans: tuple[Span, ...] = ()
    """Where the client's text cites what, in characters over all rounds."""
    limit_reached: Limit | None = None
    """What was spent, so that the model had to answer without (more) tools."""


Output = ModelResponseStream | Activity | Sources


@dataclass(frozen=True, slots=True)
class Turn:
    """One chat request that our tools take part in."""

    call: Call
    toolbox: Toolbox
    config: ChatConfig
    budget: Budget
    offered: frozenset[str]
    """Names of our tools that the model was offered."""
    client_tools: frozenset[str] = frozenset()
    """Names of the client's own."""
    foreign_tools: bool = False
    """The client offers tools whose names cannot be known beforehand (an MCP server's, a provider's)."""
    structured: dict[str, Any] | None = None
    """The ``response_format`` of the answer: of the round without tools, the only one that is shown."""
    window: Window = field(default_factory=Window)
    cache: Mapping[str, Any] = field(default_factory=lambda: dict(UNCACHED))
    """LiteLLM's ``cache`` of all rounds."""
    searched: list[Ran] = field(default_factory=list)
    """What ran before the model was asked."""
    citations: Citations = field(init=False)
    tools: ToolCalls = field(init=False)

    def __post_init__(self) -> None:
        citations = Citations(self.config.public_base_url)
        object.__setattr__(self, "citations", citations)
        calls = ToolCalls(self.toolbox, self.call, self.config, self.budget, self.offered, citations)
        object.__setattr__(self, "tools", calls)

    def is_client(self, tool: str) -> bool:
        """Whether the client is to run it. A name that nobody offered is answered here, to the model."""
        return tool in self.client_tools or (self.foreign_tools and tool not in self.offered)

    async def fit(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The conversation so far as the model is given it."""
        return await self.window.fit(messages, [*self.searched, *self.tools.ran])

    def is_answered_by(self, message: Any) -> bool:
        """Whether a plain first round is the answer as it is."""
        return not (message.tool_calls or self.citations.active or self.structured)


class Loop:
    """The state of one answer.

    Args:
        turn: The request.
        messages: As they were sent in the first round.
        ask: Calls the model for the later rounds.
        slot: Entered when the first round is over and it goes on, left when the answer ends.
        spans: Those of the request; the first round's has begun.
    """

    def __init__(
        self,
        turn: Turn,
        messages: Sequence[dict[str, Any]],
        ask: Ask,
        slot: AbstractAsyncContextManager[None] | None = None,
        spans: ChatSpans | None = None,
    ) -> None:
        self._turn = turn
        self._messages = list(messages)
        self._before = (*turn.searched, *turn.tools.ran)  # the latter from before the client's own tools ran
        self._ask = ask
        self._slot = slot or nullcontext()
        self._spans = spans or ChatSpans()
        self._text = CitedText(turn.citations)
        self._usage: Usage | None = None
        self._id = ""
        self._created = 0
        self._model: str | None = None
        self._hidden: dict[str, Any] = {}
        self._begun = False
        self._new_round = False
        self._reasoned = False
        self._new_thought = False
        """Whether the next reasoning is a later round's first, after an earlier one's."""
        self._offering = bool(turn.offered)
        """Whether the round that runs may call our tools."""
        self._answering = False
        """Whether the round that runs has said something to the client."""
        self._limit: Limit | None = None
        self._made: list[list[Called]] = []

    async def run(self, first: Chunks) -> AsyncGenerator[Output, None]:
        """The answer: chunks of one id, one finish chunk, then one with the sum of the usage.

        Raises:
            BundleError: The model, in words that name nothing internal, or the deadline.
        """
        async with AsyncExitStack() as held:
            stream = first
            for number in count(1):
                current = Round(self._turn.is_client)
                try:
                    while (chunk := await self._next(stream)) is not None:
                        self._identify(chunk, stream)
                        for activity in self._searched():
                            yield activity
                        if given := self._shown(chunk, current.take(chunk)):
                            yield self._like(chunk, self._chunk(given))
                finally:
                    if number > 1 or self._limit:  # the first is LiteLLM's to close, where it ends by itself
                        await close(stream)
                self._usage = total(self._usage, current.usage)
                if self._is_last(current):
                    break
                if number == 1:
                    await held.enter_async_context(self._slot)
                if current.own_calls and not self._is_cut:
                    message = current.message(self._ids())
                    yield self._activity(self._turn.tools.planned(message["tool_calls"]), done=False)
                    ran = await self._run_tools(message, number)
                    yield self._activity(ran, done=True)
                self._spans.begin_round()
                stream = await self._ask_again(current)
            ending = self._ending(current)
            answered(number, len(self._turn.citations.given), len(self._text.cited), self._limit)
            for last in ending:
                yield last

    def _is_last(self, current: Round) -> bool:
        """Whether the round ends the answer."""
        if not self._offering:
            return True
        if self._is_cut:
            return False
        return current.client_calls or not (current.own_calls or self._turn.structured)

    @property
    def _is_cut(self) -> bool:
        """Whether the round that offered tools was left in the middle: its calls are not whole."""
        return self._offering and self._limit == "deadline"

    async def _run_tools(self, message: dict[str, Any], number: int) -> tuple[Ran, ...]:
        """Run the round's calls and add them to the conversation, as far as the budget goes."""
        spent = self._spent(number - 1)
        with self._spans.within():
            ran = await self._turn.tools.run(message["tool_calls"], spent)
        self._messages += [message, *(call.message for call in ran)]
        self._made.append(self._ours(message["tool_calls"]))
        spent = spent or self._spent(number)
        if spent is not None:
            self._limit, self._offering = spent, False
        return ran

    def _spent(self, rounds: int) -> Limit | None:
        budget = self._turn.budget
        tokens = getattr(self._usage, "total_tokens", None) or 0
        if time.monotonic() >= self._turn.call.deadline:
            return "deadline"
        if budget.max_tokens is not None and tokens >= budget.max_tokens:
            return "max_tokens"
        if self._turn.tools.left <= 0:
            return "max_tool_calls"
        return "max_rounds" if rounds >= budget.max_rounds else None

    async def _next(self, stream: Chunks) -> ModelResponseStream | None:
        """The next chunk; None at the end, and where the time for tools is over before anything was said.

        What has begun to answer is bounded by LiteLLM's own timeouts alone.
        """
        seconds = None if self._answering else self._seconds_left(for_tools=self._offering)
        try:
            async with asyncio.timeout(seconds) as limit:
                return await anext(stream, None)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                if self._offering:
                    self._limit = "deadline"
                    return None
                raise DeadlineExceeded from error
            raise public(error, self._turn.call) from error

    async def _ask_again(self, current: Round) -> Chunks:
        """The next round's stream: with tools, or where they are over or nothing was called, without."""
        if self._is_cut or not current.own_calls:
            self._offering = False
        if self._offering:
            stream = await self._asked()
            if stream is not None:
                return stream
            self._limit, self._offering = "deadline", False
        stream = await self._asked()
        if stream is None:
            raise DeadlineExceeded
        return stream

    async def _asked(self) -> Chunks | None:
        """None where there was no time to begin."""
        self._new_round, self._new_thought, self._answering = True, self._reasoned, False
        try:
            async with asyncio.timeout(self._seconds_left(for_tools=self._offering)) as limit:
                messages = await self._turn.fit(self._messages)
                with self._spans.within():
                    return await self._ask(messages, self._offering)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                return None
            raise public(error, self._turn.call) from error

    def _seconds_left(self, *, for_tools: bool) -> float:
        longer = 0.0 if for_tools else self._turn.budget.deadline_s
        return max(0.0, self._turn.call.deadline + longer - time.monotonic())

    def _identify(self, chunk: ModelResponseStream, stream: Chunks) -> None:
        """One id and one model for all rounds: those of the round in which the client sees something."""
        if not self._id:
            self._id, self._created = chunk.id, chunk.created
        if not self._begun:
            self._model = fallback_of(stream) or chunk.model
            self._hidden = {**getattr(stream, "_hidden_params", {}), **getattr(chunk, "_hidden_params", {})}

    def _searched(self) -> list[Activity]:
        """What ran before the model was asked; once, in the likeness of its first chunk."""
        ran, self._before = self._before, ()
        return [self._activity(ran, done=done) for done in (False, True) if ran]

    def _activity(self, calls: tuple[Ran, ...], *, done: bool) -> Activity:
        words = dict.fromkeys(self._turn.tools.described(call) for call in calls)
        return Activity(self._chunk(None), calls, done, tuple(words))

    def _shown(self, chunk: ModelResponseStream, delta: dict[str, Any]) -> dict[str, Any]:
        """The delta as the client gets it, its text rewritten and remembered."""
        if thought := delta.get("reasoning_content"):
            if self._new_thought:
                delta = {**delta, "reasoning_content": f"\n\n{thought}"}
            self._reasoned, self._new_thought = True, False
        content = delta.get("content")
        if not isinstance(content, str):
            return delta
        if self._turn.structured and self._offering:  # what is said before JSON would break it
            return {k: v for k, v in delta.items() if k != "content"}
        self._answering = True
        if self._turn.structured:  # `[1, 2]` is data there
            return delta
        if self._new_round and self._text.ends_in_a_word:
            content = f"\n\n{content.lstrip()}"
        self._new_round = False
        delta = {**delta, "content": self._text.feed(content)}
        if not delta["content"] and not logprobs_of(chunk.choices[0]):
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
        if shown.choices[0].delta.content is not None:
            copy_logprobs(chunk.choices[0], shown)
        return shown

    def _ids(self) -> set[str]:
        """Of the calls in the conversation."""
        return {call_id for message in self._messages for call_id in ids_of(message)}

    def _ours(self, calls: Sequence[dict[str, Any]]) -> list[Called]:
        """Our calls among a round's, and the places of the client's."""
        found: list[Called] = []
        for ran in self._turn.tools.planned(calls):
            if self._turn.is_client(ran.name):
                found.append(None)
            else:  # also of a tool that there is not: the model is told so when the client returns
                found.append((ran.name, ran.arguments))
        return found

    def _handed_back(self, last: Round) -> list[dict[str, Any]]:
        """The client's calls, the first of them with ours of this answer in its id."""
        calls = last.calls(self._ids())
        planned = self._turn.tools.planned(calls)
        names = zip(calls, planned, strict=True)
        handed = [{**call} for call, plan in names if self._turn.is_client(plan.name)]
        for index, call in enumerate(handed):
            call["index"] = index
        handed[0]["id"] = with_trace(handed[0]["id"], [*self._made, self._ours(calls)])
        return handed

    def _sources(self) -> Sources | None:
        citations = self._turn.citations
        cited, spans = self._text.cited, self._text.spans
        results = citations.search_results(cited)
        if self._turn.structured:  # which numbers in it are citations is not known: all that were given
            given = citations.given
            cited = tuple(given.values())
            results = [
                {**result, "number": number}
                for number, result in zip(given, citations.search_results(cited), strict=True)
            ]
        if not cited and self._limit is None:
            return None
        annotations = citations.annotations(cited, spans)
        return Sources(self._chunk(None), cited, annotations, results, tuple(spans), self._limit)

    def _ending(self, last: Round) -> list[Output]:
        """What was held back of the text, the client's calls, the sources, the finish chunk and the usage."""
        outputs: list[Output] = []
        if rest := self._text.rest():
            outputs.append(self._chunk({"content": rest}))
        reason = last.finish_reason or "stop"
        if reason in ("tool_calls", "function_call"):
            reason = "stop"
        if last.client_calls:
            reason = "tool_calls"
            outputs.append(self._chunk({"tool_calls": self._handed_back(last)}))
        if (sources := self._sources()) is not None:
            outputs.append(sources)
        return [
            *outputs,
            self._chunk({}, finish_reason=reason),
            self._chunk(None, usage=self._usage or Usage()),
        ]
