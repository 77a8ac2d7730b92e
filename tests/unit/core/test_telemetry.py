"""Spans: what is done within one lies below it, also in another process; none says what a text says."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from plugins.core import telemetry
from plugins.core.errors import Forbidden
from plugins.core.telemetry import begin, continued, end, span, stage, trace_id, traceparent, within


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Those that have ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("test"))
    return exporter


def named(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {each.name: each for each in spans.get_finished_spans()}


def below(inner: ReadableSpan, outer: ReadableSpan) -> bool:
    assert inner.context is not None
    assert outer.context is not None
    return inner.parent is not None and (
        (inner.context.trace_id, inner.parent.span_id) == (outer.context.trace_id, outer.context.span_id)
    )


async def test_stages_within_a_stage_lie_below_it_also_those_of_its_tasks(
    spans: InMemorySpanExporter,
) -> None:
    async def search() -> None:
        with stage("store"):
            await asyncio.sleep(0)

    with stage("search", collections=2):
        await asyncio.gather(search(), search())
    found = spans.get_finished_spans()
    assert [each.name for each in found] == ["collections.store", "collections.store", "collections.search"]
    assert all(below(each, found[-1]) for each in found[:-1])
    assert dict(found[-1].attributes or {}) == {"collections.collections": 2}


def test_a_stage_is_counted_without_any_telemetry_and_when_it_fails() -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("collections_stage_seconds_count", {"stage": "rights"}) or 0.0

    before = counted()
    with stage("rights"):
        assert traceparent() is None
        assert trace_id() is None
    with pytest.raises(Forbidden), stage("rights"):
        raise Forbidden("the words")
    assert counted() == before + 2


def test_a_failure_is_marked_by_its_class_and_not_by_its_words(spans: InMemorySpanExporter) -> None:
    with pytest.raises(Forbidden), stage("tool"):
        raise Forbidden("You need the right `query` to `board minutes`.")
    [failed] = spans.get_finished_spans()
    assert (failed.status.is_ok, failed.status.description) == (False, "Forbidden")
    assert "board minutes" not in failed.to_json()


async def test_work_of_another_process_goes_on_in_the_trace_that_it_is_given(
    spans: InMemorySpanExporter,
) -> None:
    with span("upload"):
        given = traceparent()
        known = trace_id()
    assert given is not None
    assert given.split("-")[1] == known
    with continued(given), span("job"):
        assert trace_id() == known
    assert below(named(spans)["collections.job"], named(spans)["collections.upload"])


@pytest.mark.parametrize("given", [None, "", "nonsense", "00-0-0-01"])
def test_work_without_a_trace_begins_its_own_whatever_runs_around_it(
    spans: InMemorySpanExporter, given: str | None
) -> None:
    with span("another"):
        with continued(given), span("job"):
            pass
        assert trace_id() is not None  # that of the other goes on
    assert named(spans)["collections.job"].parent is None


async def test_a_span_over_several_tasks_takes_in_what_each_does_within_it(
    spans: InMemorySpanExporter,
) -> None:
    chat = begin("chat")
    around = begin("round", chat)

    async def step() -> None:
        with within(around), stage("tool"):
            await asyncio.sleep(0)

    await asyncio.create_task(step())
    await asyncio.create_task(step())
    assert trace.get_current_span() is trace.INVALID_SPAN
    end(around)
    end(chat, asyncio.CancelledError())
    *tools, inner, outer = spans.get_finished_spans()
    assert [below(tool, inner) for tool in tools] == [True, True]
    assert below(inner, outer)
    assert outer.status.description == "CancelledError"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_a_worker_sends_nothing_where_it_is_not_told_where_to(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert telemetry.configure("worker") is False
