"""Models of the measured proxies, as LiteLLM's `custom_provider_map` names them: `bench/...`."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from typing import Any

from litellm.llms.custom_llm import CustomLLM
from litellm.types.utils import Embedding, EmbeddingResponse, GenericStreamingChunk, Usage

DIMENSION = 384
VECTOR = [math.sin(i) * math.sqrt(2 / DIMENSION) for i in range(DIMENSION)]
"""Every query's embedding: that a query is embedded is not what is measured."""
CHUNKS = 40
GAP_S = 0.02
"""Between two chunks, as of a model that writes 50 tokens a second."""
QUERY = "notice period of the contract"


class Bench(CustomLLM):
    """Chat: a stream whose every chunk says when it was made, in seconds of this machine's monotonic clock.

    Offered tools, it first asks for one search of the documents. Embeddings: always `VECTOR`.
    """

    async def astreaming(  # type: ignore[override]  # LiteLLM iterates over what this returns, un-awaited
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[GenericStreamingChunk]:
        usage = Usage(prompt_tokens=10, completion_tokens=CHUNKS, total_tokens=10 + CHUNKS).model_dump()
        searched = any(message["role"] == "tool" for message in kwargs["messages"])
        if kwargs["optional_params"].get("tools") and not searched:
            function = {"name": "search_documents", "arguments": json.dumps({"query": QUERY})}
            yield piece(tool={"id": "call_1", "type": "function", "function": function, "index": 0})
            yield piece(finish="tool_calls", usage=usage)
            return
        for _ in range(CHUNKS):
            await asyncio.sleep(GAP_S)
            yield piece(text=f"{time.monotonic():.6f} ")
        yield piece(finish="stop", usage=usage)

    async def aembedding(self, *args: Any, **kwargs: Any) -> EmbeddingResponse:
        response: EmbeddingResponse = kwargs["model_response"]
        response.data = [
            Embedding(embedding=VECTOR, index=index, object="embedding")
            for index in range(len(kwargs["input"]))
        ]
        return response


def piece(text: str = "", tool: Any = None, finish: str = "", usage: Any = None) -> GenericStreamingChunk:
    return GenericStreamingChunk(
        text=text, tool_use=tool, is_finished=bool(finish), finish_reason=finish, usage=usage, index=0
    )


models = Bench()
