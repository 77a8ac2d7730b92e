"""The toolbox: who may run which tool, and what becomes of what goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from crawler.errors import StoreUnavailable
from crawler.settings import Settings
from crawler.store import Filter
from plugins.core.errors import (
    BundleError,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    ToolFailed,
    ToolRetry,
    UnknownCollection,
    UnknownTool,
)
from plugins.core.identity import Decision, Principal
from plugins.core.ports import Call, Parts, Tool, ToolResult
from plugins.core.toolbox import Toolbox, arguments_type
from tests.support.services import ALICE, FakeCatalogue, FakeSearch, a_call

BOB = Principal(source="local", subject="2", username="bob")
PARTS = Parts(catalogue=FakeCatalogue({}), search=FakeSearch([]))


class EchoArguments(BaseModel):
    title: str = Field(description="What to say")
    times: Annotated[int, Field(ge=1)] | None = None
    filters: Filter | None = None


class Echo(Tool[Settings, EchoArguments]):
    """Say it again.

    As often as asked.
    """

    error: Exception | None = None

    async def run(self, args: EchoArguments, call: Call) -> ToolResult:
        if self.error is not None:
            raise self.error
        return ToolResult(text=args.title * (args.times or 1))

    def describe(self, args: EchoArguments, titles: Mapping[str, str]) -> str:
        if self.error is not None:
            raise self.error
        return f"Saying {args.title}"


class Sleeper(Tool[Settings, EchoArguments]):
    """Never answers."""

    async def run(self, args: EchoArguments, call: Call) -> ToolResult:
        await asyncio.Event().wait()
        raise AssertionError


def a_toolbox(error: Exception | None = None) -> Toolbox:
    echo = Echo(Settings(), PARTS)
    echo.error = error

    def allowed(principal: Principal, tool: str) -> Decision:
        return Decision(allowed=principal == ALICE or tool == "sleeper", rule="test")

    return Toolbox({"echo": echo, "sleeper": Sleeper(Settings(), PARTS)}, allowed)


async def run(toolbox: Toolbox, arguments: Any = None, name: str = "echo") -> ToolResult:
    args = toolbox.parse(ALICE, name, arguments or {"title": "a"})
    return await toolbox.run(name, args, a_call(), 5)


def test_schemas_are_of_the_allowed_tools_and_of_those_asked_for() -> None:
    toolbox = a_toolbox()
    assert [schema["function"]["name"] for schema in toolbox.schemas(ALICE)] == ["echo", "sleeper"]
    assert [schema["function"]["name"] for schema in toolbox.schemas(BOB)] == ["sleeper"]
    assert [schema["function"]["name"] for schema in toolbox.schemas(ALICE, ["echo", "none"])] == ["echo"]
    assert toolbox.schemas(BOB, ["echo"]) == []


def test_a_tool_is_known_by_its_name_also_to_those_who_may_not_run_it() -> None:
    assert "echo" in a_toolbox()
    assert "get_weather" not in a_toolbox()


def test_a_schema_is_made_of_docstring_and_arguments_without_titles_and_nulls() -> None:
    function = a_toolbox().schemas(ALICE)[0]["function"]
    assert function["description"] == "Say it again.\n\nAs often as asked."
    parameters = function["parameters"]
    assert parameters["required"] == ["title"]
    assert parameters["properties"]["title"] == {"type": "string", "description": "What to say"}
    assert parameters["properties"]["times"] == {"type": "integer", "minimum": 1}
    assert "null" not in json.dumps(parameters)


def test_arguments_that_are_not_a_mapping_model_are_a_defect_of_the_tool() -> None:
    class Nameless(Tool[Any, Any]):
        async def run(self, args: Any, call: Call) -> ToolResult:
            return ToolResult()

    with pytest.raises(TypeError, match="Nameless"):
        arguments_type(Nameless)


@pytest.mark.parametrize("arguments", [{"title": "a", "times": 2}, '{"title": "a", "times": 2}'])
async def test_arguments_come_as_an_object_or_as_its_json(arguments: Any) -> None:
    assert (await run(a_toolbox(), arguments)).text == "aa"


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        (None, "arguments.title"),
        ("", "arguments.title"),
        ({"title": 1}, "arguments.title"),
        ({"title": "a", "times": 0}, "arguments.times"),
        ({"title": "a", "filters": {"type": "eq", "key": "k"}}, "arguments.filters.value"),
        ("{", "arguments"),
        ("7", "arguments"),
        ("[" * 100_000, "arguments"),
    ],
)
def test_wrong_arguments_name_the_field(arguments: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        a_toolbox().parse(ALICE, "echo", arguments)
    assert raised.value.param == param


@pytest.mark.parametrize("name", ["echo", "none"])
async def test_a_tool_that_may_not_be_run_is_unknown_even_with_arguments_read_for_another(name: str) -> None:
    toolbox = a_toolbox()
    with pytest.raises(UnknownTool):
        toolbox.parse(BOB, name, {"title": "a"})
    args = toolbox.parse(ALICE, "echo", {"title": "a"})
    bobs = Call(principal=BOB, request_id="r", deadline=a_call().deadline)
    with pytest.raises(UnknownTool):
        await toolbox.run(name, args, bobs, 5)


@pytest.mark.parametrize(
    "error", [Forbidden(), UnknownCollection(), StoreUnavailable(), ToolRetry("mend"), ToolFailed("no")]
)
async def test_a_program_gets_what_went_wrong_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await run(a_toolbox(error))
    assert raised.value is error


@pytest.mark.parametrize("error", [Forbidden("not you"), StoreUnavailable("not now"), BundleError("no")])
async def test_a_model_gets_a_text_that_it_must_do_without(error: BundleError | StoreUnavailable) -> None:
    with pytest.raises(ToolFailed) as raised:
        await a_toolbox(error).run_for_model("echo", '{"title": "a"}', a_call(), 5)
    assert str(raised.value) == error.message


async def test_a_model_is_told_which_argument_to_mend() -> None:
    with pytest.raises(ToolRetry, match=r"arguments\.title"):
        await a_toolbox().run_for_model("echo", "{}", a_call(), 5)
    with pytest.raises(ToolRetry, match="mend"):
        await a_toolbox(ToolRetry("mend")).run_for_model("echo", '{"title": "a"}', a_call(), 5)


async def test_a_model_that_calls_an_unknown_tool_must_do_without() -> None:
    with pytest.raises(ToolFailed):
        await a_toolbox().run_for_model("none", "{}", a_call(), 5)


async def test_a_defect_is_logged_and_tells_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ToolFailed) as raised:
        await run(a_toolbox(RuntimeError("password at /srv")))
    assert "password" not in str(raised.value)
    [record] = caplog.records
    assert (record.__dict__["request_id"], record.__dict__["user_id"]) == ("r1", a_call().principal.user_id)


async def test_a_time_out_inside_the_tool_is_not_the_deadline() -> None:
    with pytest.raises(ToolFailed):
        await run(a_toolbox(TimeoutError()))


@pytest.mark.parametrize(("timeout_s", "left_s"), [(0.01, 60.0), (60.0, 0.01), (60.0, -1.0)])
async def test_a_tool_that_does_not_answer_is_stopped(timeout_s: float, left_s: float) -> None:
    toolbox = a_toolbox()
    args = toolbox.parse(ALICE, "sleeper", {"title": "a"})
    with pytest.raises(DeadlineExceeded):
        await toolbox.run("sleeper", args, a_call(seconds=left_s), timeout_s)
    with pytest.raises(ToolFailed, match="did not answer in time"):
        await toolbox.run_for_model("sleeper", {"title": "a"}, a_call(seconds=left_s), timeout_s)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "words"),
    [
        ("echo", '{"title": "hello"}', None, "Saying hello"),
        ("echo", '{"title": "hello"}', RuntimeError("a mistake in the tool"), "Running echo"),
        ("echo", '{"title": ', None, "Running echo"),
        ("echo", "{}", None, "Running echo"),
        ("nothing", "{}", None, "Running nothing"),
        ("sleeper", '{"title": "hello"}', None, "Running test_toolbox"),
    ],
)
def test_a_call_is_described_in_words_whatever_it_is(
    name: str, arguments: str, error: Exception | None, words: str
) -> None:
    assert a_toolbox(error).describe(name, arguments, {}) == words
