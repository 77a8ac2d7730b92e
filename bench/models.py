"""Models of the measured proxies, as LiteLLM's `custom_provider_map` names them: `bench/...`."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from litellm.llms.custom_llm import CustomLLM
from litellm.types.utils import (
    ChatCompletionMessageToolCall,
    Embedding,
    EmbeddingResponse,
    GenericStreamingChunk,
    ModelResponse,
    Usage,
)

DIMENSION = 384
VECTOR = [math.sin(i) * math.sqrt(2 / DIMENSION) for i in range(DIMENSION)]
"""Every query's embedding: that a query is embedded is not what is measured."""
CHUNKS = 40
GAP_S = 0.02
"""Between two chunks, as of a model that writes 50 tokens a second."""
STEADY_CHUNKS = 100
STEADY_GAP_S = 0.3
"""Slow enough for many streams in one process."""
QUERY = "notice period of the contract"
USAGE: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": CHUNKS, "total_tokens": 10 + CHUNKS}


@dataclass(frozen=True)
class Pace:
    """How a model writes its answer."""

    chunks: int
    gap_s: float
    """Before each chunk."""
    closing: str = ""
    """Its last chunk."""


PACES = {
    "stream": Pace(CHUNKS, GAP_S),
    "fast": Pace(2, 0.0, "It is 30 days [1]."),
    "steady": Pace(STEADY_CHUNKS, STEADY_GAP_S),
}
"""By the name behind `bench/`."""


class Bench(CustomLLM):
    """Chat: an answer whose every chunk says when it was made, in seconds of this machine's monotonic clock.

    Offered tools, it first asks for one search of the documents. Embeddings: always `VECTOR`.
    """

    async def astreaming(  # type: ignore[override]  # LiteLLM iterates over what this returns, un-awaited
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[GenericStreamingChunk]:
        pace = PACES[kwargs["model"]]
        if (call := first_call(kwargs)) is not None:
            yield piece(tool=call)
            yield piece(finish="tool_calls", usage=USAGE)
            return
        for _ in range(pace.chunks):
            await asyncio.sleep(pace.gap_s)
            yield piece(text=f"{time.monotonic():.6f} ")
        yield piece(text=pace.closing)
        yield piece(finish="stop", usage=USAGE)

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        response: ModelResponse = kwargs["model_response"]
        choice: Any = response.choices[0]
        if (call := first_call(kwargs)) is not None:
            choice.message.tool_calls = [ChatCompletionMessageToolCall(**call)]
            choice.finish_reason = "tool_calls"
        else:
            choice.message.content = PACES[kwargs["model"]].closing
        response.usage = Usage(**USAGE)  # type: ignore[attr-defined]
        return response

    async def aembedding(self, *args: Any, **kwargs: Any) -> EmbeddingResponse:
        response: EmbeddingResponse = kwargs["model_response"]
        response.data = [
            Embedding(embedding=VECTOR, index=index, object="embedding")
            for index in range(len(kwargs["input"]))
        ]
        return response


def first_call(asked: dict[str, Any]) -> dict[str, Any] | None:
    """The search that the model asks for, as long as it has not been answered."""
    searched = any(message["role"] == "tool" for message in asked["messages"])
    if searched or not asked["optional_params"].get("tools"):
        return None
    function = {"name": "search_documents", "arguments": json.dumps({"query": QUERY})}
    return {"id": "call_1", "type": "function", "function": function, "index": 0}


def piece(text: str = "", tool: Any = None, finish: str = "", usage: Any = None) -> GenericStreamingChunk:
    return GenericStreamingChunk(
        text=text, tool_use=tool, is_finished=bool(finish), finish_reason=finish, usage=usage, index=0
    )


models = Bench()
