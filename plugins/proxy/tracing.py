"""Our spans in the traces of LiteLLM's callback `otel`.

LiteLLM makes a span for each request, hands it on by name and puts what it logs below it; it is never the
current span. And it ends that span when the first call of a model below it is logged, or never, on routes
that are not its own.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from fastapi import Request
from litellm.integrations.opentelemetry import LITELLM_PROXY_REQUEST_SPAN_NAME
from litellm.proxy._types import UserAPIKeyAuth
from opentelemetry import trace
from opentelemetry.trace import Span

from plugins.core.telemetry import REQUEST_SPAN, Attribute, begin, end, end_request, join, within

PARENT = "litellm_parent_otel_span"
"""Of a request's notes: the span that LiteLLM puts a model's call below."""
LOGGED = "_otel_internal"
"""Where the notes say which spans there are already: a call with another's notes would get none."""
NOTES = ("metadata", "litellm_metadata")
"""Where the notes are, by the API."""


def join_request(request: Request) -> Span | None:
    """Have all that is done for the request in its trace; answers LiteLLM's span of it."""
    span: Span | None = getattr(request.state, "parent_otel_span", None)
    if span is None:
        return None
    join(span)
    if is_to_end(span):
        setattr(request.state, REQUEST_SPAN, span)
    return span


def is_to_end(span: Span | None) -> bool:
    """Whether it is for us to end where LiteLLM does not: the span of a request, made by LiteLLM itself."""
    return span is not None and getattr(span, "name", None) == LITELLM_PROXY_REQUEST_SPAN_NAME


def below_current(notes: dict[str, Any]) -> dict[str, Any]:
    """The notes for a call of a model that belongs below the current span."""
    current = trace.get_current_span()
    if not current.is_recording():
        return notes
    return {key: value for key, value in notes.items() if key != LOGGED} | {PARENT: current}


class ChatSpans:
    """`collections.chat`, and in it a `collections.round` for each time that the model is asked.

    Args:
        auth: Whose request it is.
    """

    def __init__(self, auth: UserAPIKeyAuth | None = None) -> None:
        self._request: Span | None = auth.parent_otel_span if auth is not None else None
        self._chat = begin("chat", self._request)
        self._round: Span | None = None
        self.rounds = 0

    def within(self) -> AbstractContextManager[None]:
        """A context for work of the current round, or before the first. Not across a `yield`."""
        return within(self._current)

    def take(self, data: dict[str, Any]) -> None:
        """Have LiteLLM put its calls of models for the request below the current span."""
        if self._current.is_recording():
            self._put(data, self._current)

    def leave(self, data: dict[str, Any]) -> None:
        """Nothing of ours takes part after all."""
        self._put(data, self._request)
        self.end()

    def begin_round(self) -> None:
        """The model is asked, for the first time or again."""
        self._end_round()
        self.rounds += 1
        self._round = begin("round", self._chat, round=self.rounds)

    def end(self, error: BaseException | None = None, /, **attributes: Attribute) -> None:
        """The answer is there, or will not come."""
        self._end_round(error)
        for name, value in attributes.items():
            self._chat.set_attribute(f"collections.{name}", value)
        end(self._chat, error)

    def end_request(self, status: int) -> None:
        """The client has its answer, or is gone. Where that is an error, LiteLLM ends the request's span."""
        if is_to_end(self._request):
            end_request(self._request, status)

    @property
    def _current(self) -> Span:
        return self._round or self._chat

    def _end_round(self, error: BaseException | None = None) -> None:
        if self._round is not None:
            end(self._round, error)
            self._round = None

    @staticmethod
    def _put(data: dict[str, Any], span: Span | None) -> None:
        for name in NOTES:
            if isinstance(data.get(name), dict) and PARENT in data[name]:
                data[name][PARENT] = span
