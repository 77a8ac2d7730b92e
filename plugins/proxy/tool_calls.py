"""Running the tool calls of a round, and what the model is told of each."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plugins.core.chat_config import Budget, ChatConfig
from plugins.core.errors import ToolFailed, ToolRetry
from plugins.core.passages import render
from plugins.core.ports import Call, Passage, ToolResult
from plugins.core.toolbox import Toolbox
from plugins.proxy.citations import Citations

Limit = Literal["max_rounds", "max_tool_calls", "max_tokens", "deadline"]
"""The part of a budget that is spent."""

NO_RESULT = "Nothing was found."
NOT_RUN = "Not run: this answer may use no more {spent}. Answer with what you have, and say what is missing."
WRONG = "Not run: the arguments of `{name}` were wrong too often. Answer without it."
SPENT: dict[Limit, str] = {
    "max_rounds": "rounds of tool calls",
    "max_tool_calls": "tool calls",
    "max_tokens": "tokens",
    "deadline": "time",
}
MAX_RETRIES = 2
"""How often a tool's arguments may be mended in one answer; after that it is not run again."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A call of one of our tools."""

    id: str
    name: str
    arguments: str
    text: str = ""
    """What the model is told before the passages."""
    passages: tuple[Passage, ...] = ()
    numbers: tuple[int, ...] = ()
    """Of the passages, in this conversation."""

    @property
    def message(self) -> dict[str, Any]:
        """The answer to the call, for the model."""
        text = self.text
        if self.passages:
            passages = render(self.passages, self.numbers)
            text = f"{text}\n\n{passages}" if text else passages
        return {"role": "tool", "tool_call_id": self.id, "content": text or NO_RESULT}


class ToolCalls:
    """The calls of one answer, over all its rounds.

    Args:
        toolbox: Our tools.
        call: On whose behalf they run.
        config: The limits of each run.
        budget: How many may run.
        offered: The names that the model was offered.
        citations: Numbers the passages that are found.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        call: Call,
        config: ChatConfig,
        budget: Budget,
        offered: frozenset[str],
        citations: Citations,
    ) -> None:
        self._toolbox = toolbox
        self._call = call
        self._config = config
        self._offered = offered
        self._citations = citations
        self._retries: Counter[str] = Counter()
        self._answered: dict[tuple[str, str], Ran] = {}
        self.ran: list[Ran] = []
        """All calls, the oldest first."""
        self._budget = budget
        self.left = budget.max_tool_calls
        """How many more may run."""

    def continue_from(self, others: ToolCalls) -> None:
        """Count what others ran of the same answer, and do not run it again."""
        self._answered.update(others._answered)
        self.left -= len(others.ran)

    async def repeat(self, calls: Sequence[dict[str, Any]]) -> tuple[Ran, ...]:
        """Run the calls of an answer that goes on, the last ones as far as the budget goes. New ones have
        it anew, or an answer with many calls of the client's tools would have none left."""
        over = max(0, len(calls) - self.left)
        ran = (*await self.run(calls[:over], "max_tool_calls"), *await self.run(calls[over:]))
        self.left = self._budget.max_tool_calls
        return ran

    @staticmethod
    def planned(calls: Sequence[dict[str, Any]]) -> tuple[Ran, ...]:
        """The calls of a message, before they have run."""
        found = []
        for call in calls:
            function = call.get("function") or call["custom"]
            found.append(Ran(call["id"], function["name"], function.get("arguments") or ""))
        return tuple(found)

    def described(self, call: Ran) -> str:
        """What a call does, in words for the user."""
        return self._toolbox.describe(call.name, call.arguments, self._citations.titles)

    async def run(self, calls: Sequence[dict[str, Any]], spent: Limit | None = None) -> tuple[Ran, ...]:
        """Run a message's calls, some at once; the answers are in the order of the calls.

        Args:
            calls: As the message has them.
            spent: Why none may run any more.
        """
        planned = self.planned(calls)
        some = asyncio.Semaphore(self._config.max_parallel_tools)
        tasks: dict[tuple[str, str], asyncio.Task[ToolResult | ToolRetry | ToolFailed]] = {}
        told: list[str | None] = []

        async def result(call: Ran) -> ToolResult | ToolRetry | ToolFailed:
            async with some:
                try:
                    return await self._toolbox.run_for_model(
                        call.name, call.arguments, self._call, self._config.tool_timeout_s
                    )
                except (ToolRetry, ToolFailed) as error:
                    return error

        async with asyncio.TaskGroup() as group:
            for call in planned:
                key = canonical(call)
                known = key in tasks or key in self._answered
                told.append(None if known else self._refusal(call, spent))
                if told[-1] is None and not known:
                    self.left -= 1
                    tasks[key] = group.create_task(result(call))
        ran = []
        for call, refusal in zip(planned, told, strict=True):
            task = tasks.pop(canonical(call), None)
            ran.append(self._told(call, refusal, task.result() if task else None))
        self.ran += ran
        return tuple(ran)

    def _refusal(self, call: Ran, spent: Limit | None) -> str | None:
        """Why a call is not run, in words for the model."""
        if call.name not in self._offered:
            return f"There is no tool `{call.name[:100]}`; there are: {', '.join(sorted(self._offered))}."
        if self._retries[call.name] > MAX_RETRIES:
            return WRONG.format(name=call.name)
        if spent is None and self.left <= 0:
            spent = "max_tool_calls"
        return None if spent is None else NOT_RUN.format(spent=SPENT[spent])

    def _told(
        self, call: Ran, refusal: str | None, result: ToolResult | ToolRetry | ToolFailed | None
    ) -> Ran:
        if refusal is not None:
            return Ran(call.id, call.name, call.arguments, refusal)
        if result is None:
            return Ran(call.id, call.name, call.arguments, self._again(call))
        if isinstance(result, ToolResult):
            ran = self._found(call, result)
            self._answered[canonical(call)] = ran
            return ran
        text = f"Error: {result}"
        if isinstance(result, ToolRetry):
            self._retries[call.name] += 1
            if self._retries[call.name] > MAX_RETRIES:
                text += f"\nDo not call `{call.name}` again: answer without it."
        return Ran(call.id, call.name, call.arguments, text)

    def _again(self, call: Ran) -> str:
        """For a call that was made before, with these arguments."""
        first = self._answered.get(canonical(call))
        if first is None:
            return f"You made this call of `{call.name}` twice at once; the answer to the first is for both."
        if not first.numbers:
            return f"You called `{call.name}` with these arguments before; the answer above has not changed."
        numbers = ", ".join(f"[{number}]" for number in first.numbers)
        return f"You called `{call.name}` with these arguments before. It found {numbers}, which you have."

    def _found(self, call: Ran, result: ToolResult) -> Ran:
        """What was found, as far as the model may be given it."""
        text = result.text or (
            json.dumps(result.structured, ensure_ascii=False, default=str)
            if result.structured and not result.passages
            else ""
        )
        limit = self._config.max_tool_result_chars
        if len(text) > limit:
            text = f"{text[:limit]}\n(The result is cut here: it has {len(text)} characters.)"
        passages = _fitting(result.passages, limit - len(text))
        if left_out := len(result.passages) - len(passages):
            note = f"({left_out} more passages were found and left out: ask for fewer, or more narrowly.)"
            text = f"{text}\n{note}" if text else note
        numbers = tuple(self._citations.number(passages))
        return Ran(call.id, call.name, call.arguments, text, passages, numbers)


def canonical(call: Ran) -> tuple[str, str]:
    """The same for two calls that ask for the same."""
    try:
        arguments = json.dumps(json.loads(call.arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        arguments = call.arguments
    return call.name, arguments


def _fitting(passages: tuple[Passage, ...], limit: int) -> tuple[Passage, ...]:
    """The first that have at most ``limit`` characters together; where not even one does, a part of it."""
    fitting: list[Passage] = []
    for passage in passages:
        limit -= len(passage.text)
        if limit < 0:
            break
        fitting.append(passage)
    if passages and not fitting:
        first = passages[0]
        cut = first.text[: max(0, limit + len(first.text))]
        return (first.model_copy(update={"text": f"{cut}\n(cut here)"}),) if cut else ()
    return tuple(fitting)
