"""The ports to models, by LiteLLM's router: routing, retries, limits and spend are its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from litellm.exceptions import BadRequestError, RateLimitError, Timeout
from litellm.proxy import proxy_server
from litellm.router import Router

from plugins.core.errors import DeadlineExceeded, InvalidRequest, LimitReached, ModelUnavailable
from plugins.core.identity import Principal

SHORTEST_CHARS = 64


class RouterEmbed:
    """`plugins.core.ports.Embed`, at the principal's expense.

    A query is cut to what the model's `max_input_tokens` let expect, and to its first half until the model
    takes it: a question of several pages still finds what its beginning is about.

    Args:
        timeout_s: Seconds for one call, the router's retries included.
    """

    def __init__(self, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s

    async def __call__(self, model: str, texts: Sequence[str], principal: Principal) -> list[list[float]]:
        """One vector for each text, in their order.

        Raises:
            InvalidRequest: The model refused the texts, however short.
            ModelUnavailable: It is not configured, or did not answer.
            LimitReached, DeadlineExceeded: Try again later.
        """
        router = proxy_server.llm_router
        if router is None or not has_model(model):
            raise ModelUnavailable(
                f"The embedding model `{model}` is not configured in this proxy. "
                "Tell the operator: it belongs in the model_list."
            )
        if (tokens := _max_input_tokens(router, model)) is not None:
            # A token has about four characters: most long questions fit then at the first try.
            texts = [text[: 4 * tokens] for text in texts]
        while True:
            try:
                return await self._ask(router, model, texts, principal)
            except InvalidRequest:
                longest = max(map(len, texts))
                if longest // 2 < SHORTEST_CHARS:
                    raise
                texts = [text[: longest // 2] for text in texts]

    async def _ask(
        self, router: Router, model: str, texts: Sequence[str], principal: Principal
    ) -> list[list[float]]:
        metadata = {"user_api_key_user_id": principal.user_id, "user_api_key_user_email": principal.email}
        try:
            async with asyncio.timeout(self._timeout_s):
                response: Any = await router.aembedding(model=model, input=list(texts), metadata=metadata)
        except (TimeoutError, Timeout) as error:
            raise DeadlineExceeded(f"The embedding model `{model}` took too long to answer.") from error
        except RateLimitError as error:
            raise LimitReached(f"The rate limit of the embedding model `{model}` is reached.") from error
        except BadRequestError as error:
            raise InvalidRequest(f"The embedding model `{model}` refused the text; shorten it.") from error
        except Exception as error:  # providers raise what they like; none of it is for the caller
            raise ModelUnavailable(f"The embedding model `{model}` did not answer. Try again.") from error
        ordered = sorted(response.data, key=lambda item: item["index"])
        return [list(item["embedding"]) for item in ordered]


def _max_input_tokens(router: Router, model: str) -> int | None:
    """What the model takes, where its `model_info` says so."""
    for deployment in router.get_model_list(model_name=model) or ():
        tokens = (deployment.get("model_info") or {}).get("max_input_tokens")
        if isinstance(tokens, int):
            return tokens
    return None


def has_model(name: str) -> bool:
    """Whether the proxy has a model of this name."""
    router = proxy_server.llm_router
    return router is not None and bool(router.get_model_list(model_name=name))
