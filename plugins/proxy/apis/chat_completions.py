"""Chat completions: the loop's own form, for any OpenAI client and for Open WebUI.

Citations are annotations of the message: https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Literal

from litellm.types.utils import ModelResponse, ModelResponseStream

from plugins.proxy.apis import open_webui
from plugins.proxy.apis.open_webui import is_asking
from plugins.proxy.chunks import as_stream, collected, with_delta
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Activity, Output, Sources
from plugins.proxy.upstream import fallback_of


class ChatCompletions:
    """A request to `/v1/chat/completions`.

    Args:
        data: LiteLLM's.
        open_webui: Whom `chat.open_webui` takes for Open WebUI.
    """

    def __init__(self, data: dict[str, Any], open_webui: Literal["auto", "always", "never"] = "auto") -> None:
        self.chat = data
        self._open_webui = is_asking(data, open_webui)
        self._usage = False

    def offer(self, offered: frozenset[str]) -> None:
        self._usage = with_usage(self.chat)

    def chunks(self, response: Any) -> AsyncIterator[ModelResponseStream]:
        return as_stream(response) if isinstance(response, ModelResponse) else response

    def stream(
        self, outputs: AsyncGenerator[Output, None], citations: Citations
    ) -> AsyncGenerator[Any, None]:
        if self._open_webui:
            return open_webui.stream(outputs, citations, usage=self._usage)
        return annotated(outputs, usage=self._usage)

    def answer_at(self, sent: Sequence[Any], piece: Any) -> Any | None:
        return collected(list(sent)) if piece.choices and piece.choices[0].finish_reason else None

    async def plain(self, outputs: AsyncGenerator[Output, None], citations: Citations, first: Any) -> Any:
        chunks = [chunk async for chunk in annotated(outputs, usage=True)]
        answer = collected(chunks)
        answer.usage = chunks[-1].usage  # type: ignore[attr-defined]
        # A fallback of a later round is in the chunks; LiteLLM names what it finds here.
        answer._hidden_params = (chunks[-1] if fallback_of(chunks[-1]) else first)._hidden_params
        answer.model = fallback_of(answer) or answer.model
        return answer


def with_usage(data: dict[str, Any]) -> bool:
    """Have the model's usage streamed, to sum it over the rounds; whether the client itself asked for it."""
    if data.get("stream") is not True:
        return False
    options = data.get("stream_options") or {}
    data["stream_options"] = {**options, "include_usage": True}
    return options.get("include_usage") is True and not data.get("_litellm_strip_stream_usage")


async def annotated(
    outputs: AsyncGenerator[Output, None], *, usage: bool
) -> AsyncGenerator[ModelResponseStream, None]:
    """The chunks that the client gets.

    Args:
        outputs: The loop's.
        usage: Whether the client asked for the usage chunk.
    """
    async with aclosing(outputs):
        async for output in outputs:
            if isinstance(output, Sources):
                found: dict[str, Any] = {"search_results": output.search_results} if output.cited else {}
                if output.limit_reached is not None:
                    found["limit_reached"] = output.limit_reached
                delta = {"annotations": output.annotations or None, "provider_specific_fields": found}
                yield with_delta(output.chunk, delta)
            elif not isinstance(output, Activity) and (output.choices or usage):
                yield output
