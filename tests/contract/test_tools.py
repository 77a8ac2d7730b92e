"""What every tool must do: the contract `plugins.core.ports.Tool`, over all tools that are found."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

import plugins.tools
from crawler.registry import available, find, settings_type
from plugins.core.identity import Decision, Principal
from plugins.core.ports import Parts, Tool, ToolResult
from plugins.core.toolbox import Toolbox, arguments_type
from tests.support.services import ALICE, FakeCatalogue, FakeSearch, a_call, a_passage

NAMES = available(plugins.tools.__name__)
EXAMPLES: dict[str, dict[str, Any]] = {
    "list_collections": {},
    "read_document": {"document_id": "d1"},
    "search_documents": {"query": "leave"},
}
"""Arguments that each tool accepts; a new tool needs an entry."""


def tool_class(name: str) -> type[Tool[Any, Any]]:
    return find("plugins.tools", Tool, name)  # type: ignore[type-abstract]


def a_toolbox(name: str) -> Toolbox:
    cls = tool_class(name)
    search = FakeSearch([a_passage("30 days of leave")])
    parts = Parts(catalogue=FakeCatalogue({"handbook": "vs_h"}), search=search)
    tool = cls(settings_type(cls)(), parts)

    def allowed(principal: Principal, tool_name: str) -> Decision:
        return Decision(allowed=principal == ALICE, rule="test")

    return Toolbox({name: tool}, allowed)


def test_there_are_tools() -> None:
    assert set(NAMES) == set(EXAMPLES)


@pytest.mark.parametrize("name", NAMES)
def test_its_settings_have_defaults_and_are_frozen(name: str) -> None:
    settings = settings_type(tool_class(name))()
    assert settings.model_config.get("frozen")
    assert settings.model_config.get("extra") == "forbid"


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_told_what_it_does_and_what_each_argument_means(name: str) -> None:
    [schema] = a_toolbox(name).schemas(ALICE)
    function = schema["function"]
    assert function["name"] == name
    assert len(function["description"]) > 40
    assert function["parameters"]["type"] == "object"
    for argument, described in function["parameters"]["properties"].items():
        assert described["description"], argument
        assert "type" in described, argument
    assert "$ref" not in json.dumps(function)


@pytest.mark.parametrize("name", NAMES)
def test_its_user_is_told_in_words_what_a_run_does(name: str) -> None:
    words = a_toolbox(name).describe(name, EXAMPLES[name], {"d1": "Handbook"})
    assert words[0].isupper()
    assert name not in words


@pytest.mark.parametrize("name", NAMES)
def test_unknown_arguments_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        arguments_type(tool_class(name)).model_validate({**EXAMPLES[name], "no_such_argument": 1})


@pytest.mark.parametrize("name", NAMES)
async def test_it_answers_with_text_or_passages_and_with_data_that_is_json(name: str) -> None:
    result = await a_toolbox(name).run_for_model(name, EXAMPLES[name], a_call(), 5)
    assert isinstance(result, ToolResult)
    assert result.text or result.passages
    assert isinstance(json.loads(json.dumps(result.structured))["results"], list)


@pytest.mark.parametrize("name", NAMES)
def test_its_module_is_its_name(name: str) -> None:
    assert importlib.import_module(f"plugins.tools.{name}").__doc__
    assert tool_class(name).__doc__
