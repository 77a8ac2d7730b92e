"""How what happens is counted."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from crawler.errors import StoreUnavailable
from plugins.core.errors import Forbidden, InvalidRequest, ToolFailed, ToolRetry, Unauthenticated
from plugins.core.metrics import SEARCHES, TOOL_RUNS, counted, refused


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_what_ends_well_is_counted_by_the_result_that_it_says() -> None:
    before = value("collections_searches_total", result="nothing")
    with counted(SEARCHES) as outcome:
        outcome.result = "nothing"
    assert value("collections_searches_total", result="nothing") == before + 1


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (StoreUnavailable(), "store_unavailable"),
        (InvalidRequest("a text that is in no label"), "invalid_request"),
        (ToolRetry("a text that is in no label"), "invalid_request"),
        (ToolFailed("a text that is in no label"), "tool_failed"),
        (Unauthenticated("a text that is in no label", why="expired"), "expired"),
        (asyncio.CancelledError(), "cancelled"),
        (ZeroDivisionError("a text that is in no label"), "internal_error"),
    ],
)
def test_what_fails_is_counted_once_by_its_code_and_raised(error: BaseException, result: str) -> None:
    before = value("collections_tool_runs_total", tool="a", result=result)
    with pytest.raises(type(error)), counted(TOOL_RUNS, "a"):
        raise error
    assert value("collections_tool_runs_total", tool="a", result=result) == before + 1


def test_a_refusal_is_counted_and_the_error_stays_what_it_is() -> None:
    labels = {"right": "create", "code": "permission_denied"}
    before, error = value("collections_refusals_total", **labels), Forbidden()
    assert refused("create", error) is error
    assert value("collections_refusals_total", **labels) == before + 1
