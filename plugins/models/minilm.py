"""`local/minilm`: embeddings of 384 dimensions by all-MiniLM-L6-v2, in this process, without any server."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Sequence
from typing import Any

from litellm.exceptions import BadRequestError, ServiceUnavailableError
from litellm.llms.custom_llm import CustomLLM
from litellm.types.utils import Embedding, EmbeddingResponse, Usage

from crawler.embedders.minilm import MiniLM
from crawler.errors import ConfigError, EmbeddingFailed

MODEL = "local/minilm"
MAX_INPUTS = 2048
"""Texts in one request, as OpenAI's API has it."""


class LocalMiniLM(CustomLLM):
    """OpenAI's `/v1/embeddings`: https://platform.openai.com/docs/api-reference/embeddings

    ``encoding_format`` is `float` or `base64` (little-endian float32); ``dimensions`` is refused. LiteLLM
    refuses both for every custom provider, so the model's YAML entry drops the first
    (``additional_drop_params: [encoding_format]``) and it is read from the request. A text over the
    model's limit is a 400 with its length, never truncated.
    """

    def __init__(self) -> None:
        super().__init__()
        self._model = MiniLM()

    async def aembedding(self, *args: Any, **kwargs: Any) -> EmbeddingResponse:
        texts, encoding = read_request(kwargs["input"], encoding_of(kwargs))
        try:
            vectors = await self._model.embed(texts)
            tokens = await asyncio.to_thread(self._model.count_tokens, texts)
        except (EmbeddingFailed, ConfigError) as error:
            raise refusal(error) from error
        return answer(kwargs["model_response"], vectors, encoding, sum(tokens))

    def embedding(self, *args: Any, **kwargs: Any) -> EmbeddingResponse:
        """The same for callers without an event loop; blocks."""
        texts, encoding = read_request(kwargs["input"], encoding_of(kwargs))
        try:
            vectors = self._model.embed_batch(texts)
            tokens = self._model.count_tokens(texts)
        except (EmbeddingFailed, ConfigError) as error:
            raise refusal(error) from error
        return answer(kwargs["model_response"], vectors, encoding, sum(tokens))


def encoding_of(kwargs: dict[str, Any]) -> Any:
    """``encoding_format`` as the proxy's client sent it; `float` for callers inside the proxy."""
    request = (kwargs.get("litellm_params") or {}).get("proxy_server_request") or {}
    return (request.get("body") or {}).get("encoding_format") or "float"


def read_request(given: Any, encoding: Any) -> tuple[list[str], str]:
    """The texts and the encoding.

    Raises:
        BadRequestError: Something of it is not supported; the message says what is.
    """
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise bad_request("`input` must be a text or a list of texts, none of them empty.")
    if len(texts) > MAX_INPUTS:
        raise bad_request(
            f"`input` has {len(texts)} texts; at most {MAX_INPUTS} are accepted. Send several requests."
        )
    if encoding not in ("float", "base64"):
        raise bad_request("`encoding_format` must be `float` or `base64`.")
    return texts, encoding


def answer(
    response: EmbeddingResponse, vectors: Sequence[Sequence[float]], encoding: str, tokens: int
) -> EmbeddingResponse:
    response.model = MODEL
    response.object = "list"
    response.data = [
        Embedding(
            embedding=encode(vector) if encoding == "base64" else list(vector),
            index=index,
            object="embedding",
        )
        for index, vector in enumerate(vectors)
    ]
    response.usage = Usage(prompt_tokens=tokens, completion_tokens=0, total_tokens=tokens)
    return response


def encode(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def refusal(error: EmbeddingFailed | ConfigError) -> Exception:
    if isinstance(error, EmbeddingFailed) and not error.transient:
        return bad_request(error.message)
    return ServiceUnavailableError(
        "The embedding model cannot be loaded; the server's log says why.", model=MODEL, llm_provider="local"
    )


def bad_request(message: str) -> BadRequestError:
    return BadRequestError(message, model=MODEL, llm_provider="local")
