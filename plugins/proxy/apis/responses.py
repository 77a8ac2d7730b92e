"""OpenAI's Responses API (`/v1/responses`): a request as a chat completion's, and the answer back.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from litellm.completion_extras.litellm_responses_transformation.transformation import (
    LiteLLMResponsesTransformationHandler,
    OpenAiResponsesToChatCompletionStreamIterator,
)
from litellm.responses.litellm_completion_transformation.transformation import (
    LiteLLMCompletionResponsesConfig as Bridge,
)
from litellm.types.llms.openai import ResponsesAPIOptionalRequestParams, ResponsesAPIResponse
from litellm.types.utils import ModelResponseStream

from plugins.core.errors import InvalidRequest, ModelUnavailable
from plugins.proxy.apis.api import (
    added,
    offer_choice,
    served_by,
    simplified,
    understood,
    unwrapped,
    with_metadata,
)
from plugins.proxy.apis.response_events import ResponseEvents
from plugins.proxy.asked import is_file_search
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Output
from plugins.proxy.upstream import fallback_of

NOT_WITH_TOOLS = {
    "previous_response_id": "send the conversation in `input`",
    "conversation": "send the conversation in `input`",
    "prompt": "send `instructions` and `input`",
    "background": "ask without it",
}
"""What LiteLLM or the provider resolves in the first round alone: the later rounds would not know of it."""
NOT_AS_CHAT = ("custom", "namespace")
"""Tools whose calls have a form of their own here, which a chat completion's call does not tell."""
RESULTS = "file_search_call.results"
TEXTS = ("input_text", "output_text")
PARAMS = frozenset(ResponsesAPIOptionalRequestParams.__annotations__) - {"metadata", "stream"}


class Responses:
    """A request to `/v1/responses`.

    Args:
        data: LiteLLM's; what was for us alone has not been taken out yet.

    Raises:
        InvalidRequest: It cannot be combined with our tools.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        for name, advice in NOT_WITH_TOOLS.items():
            if data.get(name):
                raise InvalidRequest(
                    f"`{name}` cannot be used when documents are searched: {advice}.", param=name
                )
        for index, tool in enumerate(data.get("tools") or ()):
            if isinstance(tool, dict) and tool.get("type") in NOT_AS_CHAT:
                raise InvalidRequest(
                    f"A tool of type `{tool['type']}` cannot be used when documents are searched: make it a "
                    "function.",
                    param=f"tools.{index}.type",
                )
        self._data = data
        self._asked = {name: data.get(name) for name in ("tools", "instructions", "tool_choice")}
        self._results = self._take_include()
        self._response: dict[str, Any] = {}
        self._model = str(data["model"])
        self._events: ResponseEvents | None = None
        self._check_input()
        with understood("input"):
            self.chat: dict[str, Any] = self._as_chat()
        self._before = list(self.chat["messages"])
        self._choice = self.chat.get("tool_choice")

    def offer(self, offered: frozenset[str]) -> None:
        data, chat = self._data, self.chat
        ours = [tool for tool in chat.get("tools", ()) if (tool.get("function") or {}).get("name") in offered]
        theirs = [tool for tool in data.get("tools") or () if not is_file_search(tool)]
        data["tools"] = [*Bridge.transform_chat_completion_tool_params_to_responses_api_tools(ours), *theirs]
        offer_choice(
            data, self._choice, chat.get("tool_choice"), lambda name: {"type": "function", "name": name}
        )
        if "response_format" not in chat and isinstance(data.get("text"), dict):
            data["text"] = {key: value for key, value in data["text"].items() if key != "format"}
        # The provider would keep the first round alone, with our tools' calls in it.
        data["store"] = False
        self._offer_messages()

    async def chunks(self, response: Any) -> AsyncIterator[ModelResponseStream]:
        """The first round, as chunks of a chat completion.

        Raises:
            ModelUnavailable: The model reported in the stream that it failed.
        """
        self._model = fallback_of(response) or self._model
        translator = OpenAiResponsesToChatCompletionStreamIterator(response, sync_stream=False)
        async for event in _events(response):
            kind = str(event.get("type"))
            if kind in ("response.failed", "error"):
                raise ModelUnavailable
            if isinstance(event.get("response"), dict):
                self._response = {**self._response, **event["response"]}
            if kind == "response.reasoning_summary_text.delta":
                event["summary_index"] = 0  # LiteLLM takes it for the choice's
            elif kind.endswith("arguments.delta") and not event.get("delta"):
                continue
            chunk = translator.chunk_parser(event)
            chunk.id = str(self._response.get("id") or chunk.id)
            chunk.model = self._model
            yield chunk

    async def stream(
        self, outputs: AsyncGenerator[Output, None], citations: Citations
    ) -> AsyncGenerator[Any, None]:
        self._events = events = ResponseEvents(self._begun, citations, results=self._results)
        async with aclosing(outputs):
            async for output in outputs:
                for event in events.of(output):
                    yield event

    def answer_at(self, sent: Sequence[Any], piece: Any) -> Any | None:
        final = self._events.final if self._events is not None else None
        return None if final is None else ResponsesAPIResponse(**final)

    async def plain(self, outputs: AsyncGenerator[Output, None], citations: Citations, first: Any) -> Any:
        events = ResponseEvents(self._begun, citations, results=self._results)
        async with aclosing(outputs):
            async for output in outputs:
                for _ in events.of(output):
                    pass
        answer = ResponsesAPIResponse(**(events.final or {}))
        answer._hidden_params = first._hidden_params
        return answer

    def _begun(self) -> dict[str, Any]:
        """The response object without what is the answer's, with the client's own request in it."""
        kept = {key: value for key, value in self._response.items() if key not in ("output", "usage")}
        asked = {
            "tools": self._asked["tools"] or [],
            "tool_choice": self._asked["tool_choice"] or "auto",
            "instructions": self._asked["instructions"],
        }
        return {**kept, **asked, "model": self._model, "store": False}

    def _take_include(self) -> bool:
        include = self._data.get("include")
        if not isinstance(include, list) or RESULTS not in include:
            return False
        self._data["include"] = [name for name in include if name != RESULTS]
        if not self._data["include"]:
            del self._data["include"]
        return True

    def _check_input(self) -> None:
        """Take our own searches out of a conversation that the client hands back: their passages are not
        trusted, and no provider knows them."""
        given = self._data.get("input")
        if isinstance(given, list) and all(isinstance(item, dict) for item in given):
            self._data["input"] = [item for item in given if item.get("type") != "file_search_call"]
        elif not isinstance(given, str):
            raise InvalidRequest("`input` must be a text or a list of items", param="input")

    def _as_chat(self) -> dict[str, Any]:
        data = self._data
        params = {key: data[key] for key in PARAMS & data.keys()}
        params["tools"] = [tool for tool in data.get("tools") or () if not is_file_search(tool)]
        choice = params.get("tool_choice")
        if is_file_search(choice):
            del params["tool_choice"]
        translated = Bridge.transform_responses_api_request_to_chat_completion_request(
            model=served_by(str(data["model"])),
            input=data["input"],
            responses_api_request=cast("ResponsesAPIOptionalRequestParams", params),
            stream=data.get("stream"),
        )
        # LiteLLM leaves these out where there are no tools: there may be ours.
        if isinstance(choice, str) or is_file_search(choice):
            translated["tool_choice"] = choice
        if isinstance(data.get("parallel_tool_calls"), bool):
            translated["parallel_tool_calls"] = data["parallel_tool_calls"]
        kept = {key: value for key, value in data.items() if key not in PARAMS | {"input"}}
        return {**with_metadata(kept), **translated, "model": data["model"]}

    def _offer_messages(self) -> None:
        lead, rest = unwrapped(self._before)
        new_lead, new_rest = unwrapped(self.chat["messages"])
        if rest != new_rest:
            handler = LiteLLMResponsesTransformationHandler()  # type: ignore[no-untyped-call]
            given, instructions = handler.convert_chat_completion_messages_to_responses_api(
                self.chat["messages"]
            )
            self._data["input"] = [simplified(item, TEXTS) for item in given]
            self._data["instructions"] = instructions or None
        elif text := added(lead, new_lead):
            own = self._data.get("instructions")
            self._data["instructions"] = f"{text}\n\n{own}" if own else text


async def _events(response: Any) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream; for a plain response those that a stream of it would have had."""
    if isinstance(response, ResponsesAPIResponse):
        for event in _replayed(response.model_dump()):
            yield event
        return
    async for event in response:
        yield event if isinstance(event, dict) else event.model_dump()


def _replayed(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": response}
    for place, item in enumerate(response["output"]):
        if item.get("type") == "message":
            for part in item.get("content") or ():
                yield {"type": "response.output_text.delta", "delta": part.get("text") or ""}
        elif item.get("type") == "reasoning":
            for part in item.get("summary") or ():
                yield {"type": "response.reasoning_summary_text.delta", "delta": part.get("text") or ""}
        else:
            yield {"type": "response.output_item.added", "output_index": place, "item": item}
    yield {"type": f"response.{response.get('status') or 'completed'}", "response": response}
