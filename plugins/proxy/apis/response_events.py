"""The events of a streamed answer of OpenAI's Responses API, made of the loop's output.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from litellm.responses.litellm_completion_transformation.transformation import (
    LiteLLMCompletionResponsesConfig as Bridge,
)
from litellm.types.llms.openai import GenericEvent
from litellm.types.utils import ModelResponseStream, Usage

from plugins.proxy.apis import response_items as items
from plugins.proxy.chunks import as_dict
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Activity, Output, Sources

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons of an answer that was cut, as the Responses API names them."""


class ResponseEvents:
    """The state of one streamed answer.

    Its text is one message item, open from the first character to the last, because its citations are known
    when it ends. What happens meanwhile (searches, reasoning, calls) becomes items after it.

    Args:
        response: The response object as it was begun, without output; asked for with the first event.
        citations: Knows the addresses of passages.
        results: Whether the client included the results of searches.
    """

    def __init__(
        self, response: Callable[[], dict[str, Any]], citations: Citations, *, results: bool
    ) -> None:
        self._response = response
        self._citations = citations
        self._results = results
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._message: int | None = None
        self._text = ""
        self._annotations: list[dict[str, Any]] = []
        self._reasoning: int | None = None
        self._calls: dict[int, int] = {}
        """Places in the output by the index of the client's call."""
        self._searches: dict[str, int] = {}
        """Places in the output by the id of the search's call."""
        self._finish: str | None = None
        self._notes: dict[str, Any] = {}
        self.final: dict[str, Any] | None = None
        """The whole response, from the last event on."""

    def of(self, output: Output) -> Iterator[GenericEvent]:
        """The events that an output becomes."""
        if not self._sequence:
            response = {**self._response(), "status": "in_progress", "output": []}
            yield self._event("response.created", response=response)
            yield self._event("response.in_progress", response=response)
        if isinstance(output, Activity):
            yield from self._searched(output)
        elif isinstance(output, Sources):
            yield from self._cited(output)
        elif output.choices:
            yield from self._said(output)
        else:
            yield from self._completed(getattr(output, "usage", None) or Usage())

    def _said(self, chunk: ModelResponseStream) -> Iterator[GenericEvent]:
        delta: Any = chunk.choices[0].delta
        thought, text = getattr(delta, "reasoning_content", None), delta.content
        calls = [as_dict(piece) for piece in delta.tool_calls or ()]
        self._finish = chunk.choices[0].finish_reason or self._finish
        if thought:
            yield from self._reasoned(thought)
        if text or calls:
            yield from self._reasoning_ends()
        if text:
            yield from self._told(text)
        for call in calls:
            yield from self._called(call)

    def _told(self, text: str) -> Iterator[GenericEvent]:
        if self._message is None:
            item = items.message(items.new_id("msg"), [], "in_progress")
            self._message = yield from self._added(item)
            yield self._of_text("response.content_part.added", part=items.text("", []))
        self._text += text
        yield self._of_text("response.output_text.delta", delta=text, logprobs=[])

    def _reasoned(self, thought: str) -> Iterator[GenericEvent]:
        if self._reasoning is None:
            self._reasoning = yield from self._added(items.reasoning(items.new_id("rs"), []))
            part = {"type": "summary_text", "text": ""}
            self._output[self._reasoning]["summary"] = [part]
            yield self._of_reasoning("response.reasoning_summary_part.added", part=dict(part))
        self._output[self._reasoning]["summary"][0]["text"] += thought
        yield self._of_reasoning("response.reasoning_summary_text.delta", delta=thought)

    def _reasoning_ends(self) -> Iterator[GenericEvent]:
        if self._reasoning is None:
            return
        part = dict(self._output[self._reasoning]["summary"][0])
        yield self._of_reasoning("response.reasoning_summary_text.done", text=part["text"])
        yield self._of_reasoning("response.reasoning_summary_part.done", part=part)
        yield self._done(self._reasoning)
        self._reasoning = None

    def _called(self, piece: dict[str, Any]) -> Iterator[GenericEvent]:
        """A piece of a call of one of the client's tools."""
        number, function = piece.get("index") or 0, piece.get("function") or {}
        if number not in self._calls:
            item = items.function_call(
                items.new_id("fc"), piece.get("id") or "", function.get("name") or "", "", "in_progress"
            )
            self._calls[number] = yield from self._added(item)
        place = self._calls[number]
        if arguments := function.get("arguments"):
            self._output[place]["arguments"] += arguments
            yield self._of_item("response.function_call_arguments.delta", place, delta=arguments)

    def _searched(self, activity: Activity) -> Iterator[GenericEvent]:
        yield from self._reasoning_ends()
        for call in activity.calls:
            if not items.queries(call):
                continue
            if call.id not in self._searches:
                item = items.search_call(items.new_id("fs"), call, "in_progress", results=False)
                self._searches[call.id] = place = yield from self._added(item)
                yield self._of_item("response.file_search_call.in_progress", place)
                yield self._of_item("response.file_search_call.searching", place)
            if activity.done:
                place = self._searches.pop(call.id)
                done = items.search_call(self._output[place]["id"], call, "completed", results=self._results)
                self._output[place] = done
                yield self._of_item("response.file_search_call.completed", place)
                yield self._done(place)

    def _cited(self, sources: Sources) -> Iterator[GenericEvent]:
        if sources.limit_reached is not None:
            self._notes = {"provider_specific_fields": {"limit_reached": sources.limit_reached}}
        self._annotations = items.citations_of(sources, self._citations)
        for number, annotation in enumerate(self._annotations):
            yield self._of_text(
                "response.output_text.annotation.added", annotation_index=number, annotation=annotation
            )

    def _completed(self, usage: Usage) -> Iterator[GenericEvent]:
        """The end of every item that is open, and of the response."""
        yield from self._reasoning_ends()
        for place in [self._message, *self._calls.values()]:
            if place is not None:
                yield from self._item_ends(place)
        reason = INCOMPLETE.get(self._finish or "")
        status = "incomplete" if reason else "completed"
        self.final = {
            **self._response(),
            "status": status,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": self._output,
            "usage": usage_of(usage),
            **self._notes,
        }
        yield self._event(f"response.{status}", response=self.final)

    def _item_ends(self, place: int) -> Iterator[GenericEvent]:
        item = self._output[place]
        if place == self._message:
            part = items.text(self._text, self._annotations)
            item["content"] = [part]
            yield self._of_text("response.output_text.done", text=self._text, logprobs=[])
            yield self._of_text("response.content_part.done", part=part)
        else:
            whole = {"arguments": item["arguments"], "name": item["name"]}
            yield self._of_item("response.function_call_arguments.done", place, **whole)
        item["status"] = "completed"
        yield self._done(place)

    def _added(self, item: dict[str, Any]) -> Any:
        self._output.append(item)
        place = len(self._output) - 1
        yield self._event("response.output_item.added", output_index=place, item=dict(item))
        return place

    def _done(self, place: int) -> GenericEvent:
        return self._event("response.output_item.done", output_index=place, item=dict(self._output[place]))

    def _of_text(self, kind: str, **fields: Any) -> GenericEvent:
        return self._of_item(kind, self._message or 0, content_index=0, **fields)

    def _of_reasoning(self, kind: str, **fields: Any) -> GenericEvent:
        return self._of_item(kind, self._reasoning or 0, summary_index=0, **fields)

    def _of_item(self, kind: str, place: int, **fields: Any) -> GenericEvent:
        return self._event(kind, item_id=self._output[place]["id"], output_index=place, **fields)

    def _event(self, kind: str, **fields: Any) -> GenericEvent:
        event = GenericEvent(type=kind, sequence_number=self._sequence, **fields)
        self._sequence += 1
        return event


def usage_of(usage: Usage) -> dict[str, Any]:
    """The tokens, with the details that the API always has."""
    counted = Bridge.transform_chat_completion_usage_to_responses_usage(usage).model_dump(exclude_none=True)
    counted.setdefault("input_tokens_details", {"cached_tokens": 0})
    counted.setdefault("output_tokens_details", {"reasoning_tokens": 0})
    return counted
