"""Running the tool calls of a round, and what the model is told of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plugins.core.config import ChatConfig
from plugins.core.errors import ToolFailed, ToolRetry
from plugins.core.passages import render
from plugins.core.ports import Call, Passage, ToolResult
from plugins.core.toolbox import Toolbox
from plugins.proxy.citations import Citations

NO_RESULT = "Nothing was found."


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
    """The calls of one answer.

    Args:
        toolbox: Our tools.
        call: On whose behalf they run.
        config: Their limits.
        offered: The names that the model was offered.
        citations: Numbers the passages that are found.
    """

    def __init__(
        self, toolbox: Toolbox, call: Call, config: ChatConfig, offered: frozenset[str], citations: Citations
    ) -> None:
        self._toolbox = toolbox
        self._call = call
        self._config = config
        self._offered = offered
        self._citations = citations

    @staticmethod
    def planned(calls: Sequence[dict[str, Any]]) -> tuple[Ran, ...]:
        """The calls of a message, before they have run."""
        found = []
        for call in calls:
            function = call.get("function") or call["custom"]
            found.append(Ran(call["id"], function["name"], function.get("arguments", "")))
        return tuple(found)

    async def run(self, calls: Sequence[dict[str, Any]]) -> tuple[Ran, ...]:
        """Run a message's calls, some at once; the answers are in the order of the calls."""
        some = asyncio.Semaphore(self._config.max_parallel_tools)

        async def result(planned: Ran) -> ToolResult | str:
            async with some:
                return await self._result(planned.name, planned.arguments)

        planned = self.planned(calls)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(result(call)) for call in planned]
        return tuple(self._told(call, task.result()) for call, task in zip(planned, tasks, strict=True))

    async def _result(self, name: str, arguments: str) -> ToolResult | str:
        """What a tool found, or in words for the model why it did not."""
        if name not in self._offered:
            return f"There is no tool `{name}`; there are: {', '.join(sorted(self._offered))}."
        try:
            return await self._toolbox.run_for_model(name, arguments, self._call, self._config.tool_timeout_s)
        except (ToolRetry, ToolFailed) as error:
            return f"Error: {error}"

    def _told(self, call: Ran, result: ToolResult | str) -> Ran:
        if isinstance(result, str):
            return Ran(call.id, call.name, call.arguments, result)
        text = result.text or (
            json.dumps(result.structured, ensure_ascii=False, default=str)
            if result.structured and not result.passages
            else ""
        )
        numbers = tuple(self._citations.number(result.passages))
        return Ran(call.id, call.name, call.arguments, text, result.passages, numbers)
