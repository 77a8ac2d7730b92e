"""Embeddings by an OpenAI-compatible server, such as the proxy's ``/v1/embeddings``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAIError, omit
from pydantic import Field, SecretStr

from crawler.errors import EmbeddingFailed
from crawler.settings import Settings


class OpenAISettings(Settings):
    base_url: str
    """With the version: ``http://localhost:4000/v1``."""
    api_key: SecretStr
    model: str
    dimension: int | None = Field(default=None, ge=1)
    """What each vector must have; not checked when not given."""
    batch_size: int = Field(default=32, ge=1, le=2048)
    """Texts of one request."""
    timeout_s: float = Field(default=60, gt=0)
    max_retries: int = Field(default=3, ge=0, le=10)
    """Of one request, after failed connections and the statuses 408, 409, 429 and 5xx, with pauses."""


class OpenAIEmbedder:
    """One client per event loop; ``for_user`` shares it."""

    def __init__(
        self,
        settings: OpenAISettings,
        *,
        user: str | None = None,
        client: AsyncOpenAI | None = None,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """``headers`` is asked for each request's further ones, such as a trace's."""
        self.settings = settings
        self.user = user
        self._headers = headers
        self._client = client or AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key.get_secret_value(),
            timeout=settings.timeout_s,
            max_retries=settings.max_retries,
        )

    def for_user(self, user: str | None) -> OpenAIEmbedder:
        """The same, with ``user`` named as the one on whose behalf it is."""
        return OpenAIEmbedder(self.settings, user=user, client=self._client, headers=self._headers)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector for each text, in their order.

        Raises:
            EmbeddingFailed: The server cannot be reached, refuses, or answers something else than asked;
                ``transient`` tells whether to try again is of use.
        """
        vectors: list[list[float]] = []
        for start in range(0, len(texts), self.settings.batch_size):
            vectors += await self._request(list(texts[start : start + self.settings.batch_size]))
        return vectors

    async def close(self) -> None:
        await self._client.close()

    async def _request(self, texts: list[str]) -> list[list[float]]:
        model = self.settings.model
        try:
            answer = await self._client.embeddings.create(
                model=model,
                input=texts,
                encoding_format="float",
                user=self.user or omit,
                extra_headers=self._headers(),
            )
        except APIStatusError as error:
            transient = error.status_code in {408, 409, 425, 429} or error.status_code >= 500
            raise _failed(
                f"The embedding model `{model}` refused (status {error.status_code}).", transient
            ) from error
        except APIConnectionError as error:
            raise _failed(f"The embedding model `{model}` could not be reached.", True) from error
        except OpenAIError as error:
            raise _failed(f"The embedding model `{model}` did not answer as expected.", True) from error
        vectors = [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
        if len(vectors) != len(texts):
            raise _failed(
                f"The embedding model `{model}` answered {len(vectors)} of {len(texts)} texts.", True
            )
        expected = self.settings.dimension or len(vectors[0])
        wrong = next((len(vector) for vector in vectors if len(vector) != expected), None)
        if wrong is not None:
            raise _failed(
                f"The embedding model `{model}` answered {wrong} dimensions instead of {expected}. "
                "It is not the model that the collection was made with.",
                False,
            )
        return vectors


def _failed(message: str, transient: bool) -> EmbeddingFailed:
    error = EmbeddingFailed(message)
    error.transient = transient
    return error
