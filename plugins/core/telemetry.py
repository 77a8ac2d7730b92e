"""How long each stage of the work took: as a metric, and as a span of the request's trace.

The spans go wherever OpenTelemetry is told to send them: in the proxy by LiteLLM's callback `otel`, in a
worker by `configure`; else nowhere. They hold numbers, and names of stages and tools: never texts, people's
names or tokens.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from opentelemetry import context, trace
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from plugins.core.metrics import STAGE_SECONDS

log = logging.getLogger(__name__)

Stage = Literal["auth", "tool", "search", "rights", "embed", "store"]
Attribute = str | int | float | bool

REQUEST_SPAN = "collections_request_span"
"""Where a request's `state` holds its span, where that is for us to end."""
HEADER = "traceparent"
"""https://www.w3.org/TR/trace-context/#traceparent-header"""

tracer = trace.get_tracer("litellm_collections")
_w3c = TraceContextTextMapPropagator()


@contextmanager
def stage(name: Stage, **attributes: Attribute) -> Iterator[Span]:
    """Time what is done within, by itself: a stage within it counts for both.

    Args:
        name: A stage; it is the metric's label and a part of the span's name.
        attributes: Of the span, without their prefix; no texts of documents or questions.
    """
    began = time.perf_counter()
    with span(name, **attributes) as its:
        try:
            yield its
        finally:
            STAGE_SECONDS.labels(name).observe(time.perf_counter() - began)


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[Span]:
    """`collections.<name>`, below the span that is current, around what is done within."""
    its = begin(name, **attributes)
    error: BaseException | None = None
    try:
        with within(its):
            yield its
    except BaseException as raised:
        error = raised
        raise
    finally:
        end(its, error)


def begin(name: str, parent: Span | None = None, /, **attributes: Attribute) -> Span:
    """`collections.<name>`, for who cannot hold a context open: a generator's steps may run in several tasks.
    Give it to `end`.

    Args:
        name: Of what is done.
        parent: The span above it; by default the current one.
        attributes: Without their prefix.
    """
    above = trace.set_span_in_context(parent) if parent is not None else None
    named = {f"collections.{key}": value for key, value in attributes.items()}
    return tracer.start_span(f"collections.{name}", above, attributes=named)


def end(its: Span, error: BaseException | None = None) -> None:
    """End a span. Of an error only the class is said: its message may hold a text."""
    if error is not None:
        its.set_status(Status(StatusCode.ERROR, type(error).__name__))
    its.end()


@contextmanager
def within(its: Span) -> Iterator[None]:
    """Make a span the current one, without ending it."""
    with trace.use_span(its, record_exception=False, set_status_on_exception=False):
        yield


def join(its: Span) -> None:
    """Make a span the current one for the rest of the running task."""
    context.attach(trace.set_span_in_context(its))


def end_request(its: Span | None, status: int) -> None:
    """End a request's span with the status that was answered (OpenTelemetry's HTTP conventions)."""
    if its is None or not its.is_recording():
        return
    its.set_attribute("http.response.status_code", status)
    its.set_status(Status(StatusCode.ERROR if status >= 500 else StatusCode.OK))
    its.end()


def traceparent() -> str | None:
    """The current span as it is told to who goes on with its work; None where there is no trace."""
    return headers().get(HEADER)


def headers() -> dict[str, str]:
    """Of a request that is part of the current span (W3C Trace Context); none where there is no trace."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier


@contextmanager
def continued(parent: str | None) -> Iterator[None]:
    """Work within the trace of `traceparent`; None, or one that cannot be read, begins a trace of its own."""
    token = context.attach(_w3c.extract({HEADER: parent} if parent else {}, context.Context()))
    try:
        yield
    finally:
        context.detach(token)


def trace_id() -> str | None:
    """Of the running trace, in 32 hexadecimal digits; None where there is none."""
    found = trace.get_current_span().get_span_context()
    return trace.format_trace_id(found.trace_id) if found.is_valid else None


def configure(service: str) -> bool:
    """Send a worker's spans where OpenTelemetry's variables say; whether that is anywhere.

    That is for a process of ours alone: in the proxy, LiteLLM does it. Without `OTEL_EXPORTER_OTLP_ENDPOINT`
    (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`), or without the extra `telemetry`, nothing is sent.
    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

    Args:
        service: The `service.name` where `OTEL_SERVICE_NAME` says none.
    """
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp" or not any(map(os.environ.get, endpoints)):
        return False
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        log.warning("Traces are not sent: install the extra `telemetry`")
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", service)}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return True
