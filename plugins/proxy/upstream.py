"""The model behind a chat: asked again for each later round, and its errors in words for the client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from litellm.exceptions import (
    BadRequestError,
    ContextWindowExceededError,
    RateLimitError,
    Timeout,
)
from litellm.proxy import proxy_server
from litellm.types.utils import ModelResponseStream

from plugins.core.errors import (
    BundleError,
    DeadlineExceeded,
    InvalidRequest,
    LimitReached,
    ModelUnavailable,
)
from plugins.core.ports import Call
from plugins.proxy.caches import UNCACHED, count
from plugins.proxy.disconnect import PaidStream
from plugins.proxy.tracing import below_current

log = logging.getLogger(__name__)

Chunks = AsyncIterator[ModelResponseStream]
Ask = Callable[[list[dict[str, Any]], bool], Awaitable[Chunks]]
"""Calls the model again: with the messages so far, and whether tools are offered."""

OURS = frozenset({"litellm_logging_obj", "litellm_call_id", "deployment", "guardrail_to_apply"})
"""What belongs to the first round in a request's data; each round is logged and priced by itself."""


def fallback_of(response: Any) -> str | None:
    """The model group that answered instead of the one that was asked; None where there was no fallback."""
    given = response.get if isinstance(response, dict) else partial(getattr, response)
    headers = (given("_hidden_params", None) or {}).get("additional_headers") or {}
    return headers.get("x-litellm-model-group") if headers.get("x-litellm-attempted-fallbacks") else None


def ask_again(
    data: dict[str, Any],
    first: Any,
    response_format: dict[str, Any] | None = None,
    cache: Mapping[str, Any] = UNCACHED,
) -> Ask:
    """Calls the router as LiteLLM did in the first round: same model, parameters, key.

    Where a fallback answered a round, it goes on with the next; a ``tool_choice`` that forces a call counts
    for the first round.

    Args:
        data: The request.
        first: LiteLLM's response of the first round. A stream's fallback may take over until its first token.
        response_format: Of a round without tools.
        cache: LiteLLM's ``cache`` of every round.
    """
    answered = first
    kept = {k: v for k, v in data.items() if k not in OURS and not k.startswith("_litellm")}
    kept["cache"] = dict(cache)
    kept["stream"] = True
    kept["stream_options"] = {"include_usage": True}
    kept["litellm_trace_id"] = data.get("litellm_trace_id") or data.get("litellm_call_id")
    choice = kept.pop("tool_choice", None)
    if choice == "auto":
        kept["tool_choice"] = choice

    async def ask(messages: list[dict[str, Any]], tools: bool) -> Any:
        nonlocal answered
        router = proxy_server.llm_router
        if router is None:
            raise RuntimeError("the proxy has no router")
        kept["model"] = fallback_of(answered) or kept["model"]
        request = {
            k: v for k, v in kept.items() if tools or k not in ("tools", "tool_choice", "parallel_tool_calls")
        }
        if response_format is not None and not tools:
            request["response_format"] = response_format
        for name in ("metadata", "litellm_metadata"):
            if isinstance(request.get(name), dict):
                request[name] = below_current(dict(request[name]))  # the router writes its own notes into it
        stream = await router.acompletion(**{**request, "messages": list(messages)})
        count(stream, cache)
        answered = PaidStream(stream)
        return answered

    return ask


def public(error: Exception, call: Call) -> BundleError:
    """A round's error in words that name no host, path or key; the cause is logged with the request's id."""
    if isinstance(error, BundleError):
        return error
    ids = {"request_id": call.request_id, "user_id": call.principal.user_id}
    status = getattr(error, "status_code", None)
    log.warning("the model broke off: %s, status %s", type(error).__name__, status, extra=ids)
    log.debug("of the model that broke off", exc_info=error, extra=ids)  # its words may quote a document
    if isinstance(error, RateLimitError):
        return LimitReached("The model's rate limit is reached. Try again later.")
    if isinstance(error, Timeout | TimeoutError):
        return DeadlineExceeded("The model took too long to answer.")
    if isinstance(error, ContextWindowExceededError):
        return InvalidRequest(
            "What was found and the conversation together are too long for this model. Start a new chat, ask "
            "for fewer passages, or choose a model with a larger context."
        )
    if isinstance(error, BadRequestError):
        return InvalidRequest("The model refused the request after tools had run. Try another model.")
    return ModelUnavailable()
