"""Chat completions: the loop's own form, for any OpenAI client and for Open WebUI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Literal

from litellm.types.utils import ModelResponse, ModelResponseStream

from plugins.proxy.apis import completions, open_webui
from plugins.proxy.apis.open_webui import is_asking
from plugins.proxy.chunks import as_stream, collected
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Output
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
        self._usage = completions.with_usage(self.chat)

    def chunks(self, response: Any) -> AsyncIterator[ModelResponseStream]:
        return as_stream(response) if isinstance(response, ModelResponse) else response

    def stream(
        self, outputs: AsyncGenerator[Output, None], citations: Citations
    ) -> AsyncGenerator[Any, None]:
        if self._open_webui:
            return open_webui.stream(outputs, citations, usage=self._usage)
        return completions.stream(outputs, usage=self._usage)

    def answer_at(self, sent: Sequence[Any], piece: Any) -> Any | None:
        return collected(list(sent)) if piece.choices and piece.choices[0].finish_reason else None

    async def plain(self, outputs: AsyncGenerator[Output, None], citations: Citations, first: Any) -> Any:
        answer = await completions.plain(outputs)
        answer._hidden_params = first._hidden_params
        answer.model = fallback_of(first) or answer.model
        return answer
