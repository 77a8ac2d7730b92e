"""Chat completions for any OpenAI client: citations are annotations of the message.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from litellm.types.utils import ModelResponse, ModelResponseStream

from plugins.proxy.chunks import collected, with_delta
from plugins.proxy.loop import Activity, Output, Sources


def with_usage(data: dict[str, Any]) -> bool:
    """Have the model's usage streamed, to sum it over the rounds; whether the client itself asked for it."""
    if not data.get("stream"):
        return False
    options = data.get("stream_options") or {}
    data["stream_options"] = {**options, "include_usage": True}
    return options.get("include_usage") is True and not data.get("_litellm_strip_stream_usage")


async def stream(
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


async def plain(outputs: AsyncGenerator[Output, None]) -> ModelResponse:
    """The same answer in one piece."""
    chunks = [chunk async for chunk in stream(outputs, usage=True)]
    answer = collected(chunks)
    answer.usage = chunks[-1].usage  # type: ignore[attr-defined]
    return answer
