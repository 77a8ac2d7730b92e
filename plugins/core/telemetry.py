"""How long each stage of the work took: as a metric, and as a span of the request's trace.

The spans go wherever OpenTelemetry is told to send them (LiteLLM's callback `otel`); else nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode

from plugins.core.metrics import STAGE_SECONDS

Stage = Literal["auth", "tool", "search", "rights", "embed", "store"]

tracer = trace.get_tracer("litellm_collections")


@contextmanager
def stage(name: Stage, **attributes: str | int | float | bool) -> Iterator[Span]:
    """Time what is done within, by itself: a stage within it counts for both.

    Args:
        name: A stage; it is the metric's label and a part of the span's name.
        attributes: Of the span; no texts of documents or questions.
    """
    began = time.perf_counter()
    with tracer.start_as_current_span(
        f"collections.{name}", attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))  # its message may hold a text
            raise
        finally:
            STAGE_SECONDS.labels(name).observe(time.perf_counter() - began)
