"""Answers of chat models by an OpenAI-compatible server, such as the proxy's ``/v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAIError, omit
from openai.types.chat import ChatCompletion

from crawler.errors import ModelFailed

TIMEOUT_S = 120.0
"""Of one try."""
MAX_RETRIES = 2
"""After failed connections and the statuses 408, 409, 429 and 5xx, with pauses."""
HEADERS = {"X-RAG-Task": "ingestion"}
"""The proxy then leaves the request as it is: a model that answers from documents must not look for some
here, with the rights of the worker's key."""
_AGAIN = frozenset({408, 409, 425, 429})


class Completions:
    """One client per event loop; ``for_user`` shares it. It is a :class:`crawler.contracts.Complete`."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        user: str | None = None,
        client: AsyncOpenAI | None = None,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Makes its client, unless there is one.

        Args:
            base_url: With the version: ``http://localhost:4000/v1``.
            api_key: Of the server.
            user: On whose behalf it is.
            client: Used as it is.
            headers: Asked for each request's further ones, such as a trace's.
        """
        self._base_url, self._api_key = base_url, api_key
        self._user = user
        self._headers = headers
        self._client = client or AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=TIMEOUT_S,
            max_retries=MAX_RETRIES,
            default_headers=HEADERS,
        )

    def for_user(self, user: str | None) -> Completions:
        """The same, with ``user`` named as the one on whose behalf it is."""
        return Completions(
            self._base_url, self._api_key, user=user, client=self._client, headers=self._headers
        )

    async def close(self) -> None:
        await self._client.close()

    async def __call__(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        response_format: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of the model's answer.

        Raises:
            ModelFailed: It cannot be reached, refuses, or answers no text; ``transient`` tells whether to
                try again is of use.
        """
        asked: dict[str, Any] = {
            "model": model,
            "messages": list(messages),
            "user": self._user or omit,
            "extra_headers": self._headers(),
        }
        if response_format is not None:
            asked["response_format"] = response_format
        try:
            answer = await self._client.chat.completions.create(**asked)
        except APIStatusError as error:
            transient = error.status_code in _AGAIN or error.status_code >= 500
            raise _failed(f"The model `{model}` refused (status {error.status_code}).", transient) from error
        except APIConnectionError as error:
            raise _failed(f"The model `{model}` could not be reached.", True) from error
        except (OpenAIError, ValueError) as error:
            raise _failed(f"The model `{model}` did not answer as expected.", True) from error
        if not isinstance(answer, ChatCompletion):
            raise _failed(f"The model `{model}` did not answer as expected.", True)
        text = answer.choices[0].message.content if answer.choices else None
        if not text:
            raise _failed(f"The model `{model}` answered nothing, or declined.", False)
        return text


def _failed(message: str, transient: bool) -> ModelFailed:
    error = ModelFailed(message)
    error.transient = transient
    return error
