"""The ports to models, by LiteLLM's router: routing, retries, limits and spend are its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from litellm.exceptions import BadRequestError, RateLimitError, Timeout
from litellm.proxy import proxy_server
from litellm.router import Router

from plugins.core.errors import DeadlineExceeded, InvalidRequest, LimitReached, ModelUnavailable
from plugins.core.identity import Principal
from plugins.core.metrics import QUERY_EMBEDDINGS
from plugins.proxy.caches import Vectors, fingerprint_of, for_vectors
from plugins.proxy.tracing import below_current
from plugins.proxy.upstream import fallback_of

SHORTEST_CHARS = 64


class RouterEmbed:
    """`plugins.core.ports.Embed`, at the principal's expense.

    A query is cut to what the model's `max_input_tokens` let expect, and to its first half until the model
    takes it: a question of several pages still finds what its beginning is about.

    Args:
        timeout_s: Seconds for one call, the router's retries included.
        kept: What was embedded before is not embedded again, and costs nothing; None = nothing is kept.
    """

    def __init__(self, timeout_s: float = 60.0, kept: Vectors | None = None) -> None:
        self._timeout_s = timeout_s
        self._kept = kept

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
        fingerprint = fingerprint_of(router, model)
        if self._kept is None:
            return (await self._embedded(router, model, fingerprint, texts, principal)).vectors
        found = [self._kept.get(fingerprint, text) for text in texts]
        for vector in found:
            QUERY_EMBEDDINGS.labels("miss" if vector is None else "hit").inc()
        known = [vector for vector in found if vector is not None]
        if len(known) == len(texts):
            return known
        answer = await self._embedded(router, model, fingerprint, texts, principal)
        if not answer.by_fallback:  # another model's would be taken for this one's as long as they are kept
            for text, vector in zip(texts, answer.vectors, strict=True):
                self._kept.put(fingerprint, text, vector)
        return answer.vectors

    async def _embedded(
        self, router: Router, model: str, fingerprint: str, texts: Sequence[str], principal: Principal
    ) -> _Answer:
        if (tokens := _max_input_tokens(router, model)) is not None:
            # A token has about four characters: most long questions fit then at the first try.
            texts = [text[: 4 * tokens] for text in texts]
        while True:
            try:
                return await self._ask(router, model, fingerprint, texts, principal)
            except InvalidRequest:
                longest = max(map(len, texts))
                if longest // 2 < SHORTEST_CHARS:
                    raise
                texts = [text[: longest // 2] for text in texts]

    async def _ask(
        self, router: Router, model: str, fingerprint: str, texts: Sequence[str], principal: Principal
    ) -> _Answer:
        metadata = below_current(
            {"user_api_key_user_id": principal.user_id, "user_api_key_user_email": principal.email}
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                response: Any = await router.aembedding(
                    model=model, input=list(texts), metadata=metadata, cache=for_vectors(fingerprint)
                )
        except (TimeoutError, Timeout) as error:
            raise DeadlineExceeded(f"The embedding model `{model}` took too long to answer.") from error
        except RateLimitError as error:
            raise LimitReached(f"The rate limit of the embedding model `{model}` is reached.") from error
        except BadRequestError as error:
            raise InvalidRequest(f"The embedding model `{model}` refused the text; shorten it.") from error
        except Exception as error:  # providers raise what they like; none of it is for the caller
            raise ModelUnavailable(f"The embedding model `{model}` did not answer. Try again.") from error
        ordered = sorted(response.data, key=lambda item: item["index"])
        vectors = [list(item["embedding"]) for item in ordered]
        return _Answer(vectors, by_fallback=fallback_of(response) is not None)


class _Answer(NamedTuple):
    vectors: list[list[float]]
    by_fallback: bool


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
