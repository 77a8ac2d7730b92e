"""Running the calls of a round, and what the model is told of each."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pydantic import BaseModel

from crawler.settings import Settings
from plugins.core.chat_config import Budget, ChatConfig
from plugins.core.errors import ToolFailed
from plugins.core.identity import Decision
from plugins.core.ports import Call, Parts, Passage, Tool, ToolResult
from plugins.core.toolbox import Toolbox
from plugins.proxy.citations import Citations
from plugins.proxy.tool_calls import Ran, ToolCalls
from tests.support.services import ALICE, a_passage


class Order(BaseModel):
    result: str
    """What to do: the name of a gate to wait for, or of a prepared result."""
    times: int = 1


class Scripted(Tool[Settings, Order]):
    """Does as it is told."""

    def __init__(self) -> None:
        super().__init__(Settings(), Parts(catalogue=None, search=None))  # type: ignore[arg-type]
        self.results: dict[str, ToolResult] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.runs: list[str] = []
        self.ended: list[str] = []
        self.three_ended = asyncio.Event()

    async def run(self, args: Order, call: Call) -> ToolResult:
        self.runs.append(args.result)
        if args.result == "fails":
            raise ToolFailed("the store is away")
        if args.result in self.gates:
            await self.gates[args.result].wait()
        self.ended.append(args.result)
        if len(self.ended) == 3:
            self.three_ended.set()
        return self.results.get(args.result, ToolResult(text=f"did {args.result}"))


def tools(tool: Scripted, budget: Budget | None = None, **limits: Any) -> ToolCalls:
    toolbox = Toolbox({"do": tool, "other": tool}, lambda p, n: Decision(allowed=True, rule="test"))
    call = Call(principal=ALICE, request_id="r", deadline=time.monotonic() + 30)
    offered = frozenset({"do", "other"})
    return ToolCalls(
        toolbox, call, ChatConfig(**limits), budget or Budget(), offered, Citations("https://proxy.example")
    )


def calls(*arguments: str, name: str = "do") -> list[dict[str, Any]]:
    return [
        {"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": text}}
        for index, text in enumerate(arguments)
    ]


def told(ran: tuple[Ran, ...]) -> list[str]:
    return [call.message["content"] for call in ran]


async def test_a_slow_tool_holds_back_no_other_and_the_answers_keep_the_order_of_the_calls() -> None:
    tool = Scripted()
    tool.gates["slow"] = asyncio.Event()
    names = ["slow", "a", "b", "c"]
    running = asyncio.create_task(
        tools(tool, max_parallel_tools=2).run(calls(*(f'{{"result": "{name}"}}' for name in names)))
    )
    async with asyncio.timeout(10):
        await tool.three_ended.wait()
        assert tool.ended == ["a", "b", "c"]
        tool.gates["slow"].set()
        assert told(await running) == ["did slow", "did a", "did b", "did c"]


async def test_each_call_has_its_own_time_from_its_start() -> None:
    """With one place, the second call waits as long as the first may run, and then has its own time."""
    tool = Scripted()
    tool.gates["stuck"] = asyncio.Event()
    ran = await tools(tool, max_parallel_tools=1, tool_timeout_s=0.05).run(
        calls('{"result": "stuck"}', '{"result": "quick"}')
    )
    assert "did not answer in time" in told(ran)[0]
    assert told(ran)[1] == "did quick"


@pytest.mark.parametrize("same", ['{"times": 1, "result": "x"}', '{ "result":"x","times":1 }'])
async def test_the_same_call_is_answered_from_the_first_result(same: str) -> None:
    tool = Scripted()
    tool.results["x"] = ToolResult(passages=(a_passage("one"), a_passage("two", "vs_f")))
    run = tools(tool).run
    first = told(await run(calls('{"result": "x", "times": 1}')))[0]
    assert "one" in first
    again, other = told(await run([*calls(same), *calls(same, name="other")]))
    assert "before" in again
    assert "[1], [2]" in again
    assert "one" not in again
    assert "[1] " in other, "another tool is another call"
    assert tool.runs == ["x", "x"]


async def test_the_same_call_twice_at_once_runs_once() -> None:
    tool = Scripted()
    first, second = told(await tools(tool).run(calls('{"result": "x"}', '{"result": "x"}')))
    assert first == "did x"
    assert "before" in second
    assert tool.runs == ["x"]


async def test_a_call_that_failed_may_be_made_again() -> None:
    tool = Scripted()
    run = tools(tool).run
    for _ in range(2):
        assert told(await run(calls('{"result": "fails"}'))) == ["Error: the store is away"]
    assert tool.runs == ["fails", "fails"]


async def test_wrong_arguments_go_back_twice_for_each_tool_and_then_it_is_to_do_without() -> None:
    tool = Scripted()
    run = tools(tool).run
    wrong = ('{"result": ', "{}", '{"result": 3}')
    texts = [told(await run(calls(arguments)))[0] for arguments in wrong]
    assert all(text.startswith("Error: ") for text in texts)
    assert ["Do not call `do` again" in text for text in texts] == [False, False, True]
    assert "JSON" in texts[0]
    assert "result" in texts[1]
    [other] = told(await run(calls("{}", name="other")))
    assert "Do not call" not in other
    [refused] = told(await run(calls('{"result": "x"}')))
    assert refused == "Not run: the arguments of `do` were wrong too often. Answer without it."
    assert told(await run(calls('{"result": "x"}', name="other"))) == ["did x"]
    assert tool.runs == ["x"]


@pytest.mark.parametrize("arguments", ["[]", '"x"', "3", "null"])
async def test_arguments_that_are_no_object_are_told_so_without_a_name_of_ours(arguments: str) -> None:
    [text] = told(await tools(Scripted()).run(calls(arguments)))
    assert text == "Error: arguments: must be a JSON object"


async def test_an_unknown_tool_is_answered_with_those_that_there_are() -> None:
    [text] = told(await tools(Scripted()).run(calls("{}", name="drop_everything")))
    assert text == "There is no tool `drop_everything`; there are: do, other."


async def test_calls_beyond_the_budget_are_answered_in_words() -> None:
    tool = Scripted()
    budgeted = tools(tool, Budget(max_tool_calls=2))
    texts = told(await budgeted.run(calls(*(f'{{"result": "{number}"}}' for number in range(4)))))
    assert texts[:2] == ["did 0", "did 1"]
    assert all(text.startswith("Not run: this answer may use no more tool calls.") for text in texts[2:])
    assert (tool.runs, budgeted.left) == (["0", "1"], 0)


async def test_of_too_many_passages_the_last_are_left_out_whole_and_the_model_told_so() -> None:
    tool = Scripted()
    tool.results["big"] = ToolResult(passages=tuple(a_passage(str(n) * 600) for n in range(5)))
    [ran] = await tools(tool, max_tool_result_chars=2000).run(calls('{"result": "big"}'))
    assert [len(passage.text) for passage in ran.passages] == [600, 600, 600]
    assert ran.message["content"].startswith("(2 more passages were found and left out")
    assert ran.numbers == (1, 2, 3), "who was not given has no number"


@pytest.mark.parametrize(
    "result",
    [
        ToolResult(text="x" * 10_000_000),
        ToolResult(structured={"rows": "x" * 10_000_000}),
        ToolResult(passages=(a_passage("x" * 10_000_000), a_passage("y"))),
        ToolResult(text="x" * 10_000_000, passages=(a_passage("y" * 10_000_000),)),
        ToolResult(passages=(a_passage("`" * 10_000_000),)),
    ],
)
async def test_a_result_of_10_mb_is_cut_and_the_model_told_so(result: ToolResult) -> None:
    tool = Scripted()
    tool.results["huge"] = result
    [text] = told(await tools(tool, max_tool_result_chars=5000).run(calls('{"result": "huge"}')))
    assert "cut" in text
    assert len(text) < 20_000, "with a fence that is longer than any in the passage"


async def test_a_passage_that_is_cut_is_the_one_that_can_be_cited() -> None:
    tool = Scripted()
    tool.results["huge"] = ToolResult(passages=(a_passage("x" * 9000),))
    [ran] = await tools(tool, max_tool_result_chars=5000).run(calls('{"result": "huge"}'))
    [passage] = ran.passages
    assert isinstance(passage, Passage)
    assert len(passage.text) < 5100
