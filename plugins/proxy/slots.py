"""The later rounds of a chat among the caller's parallel requests.

LiteLLM gives a request's slot back when the first round is logged. Ours is taken in the same gauge of
LiteLLM's rate limiter, so that it is LiteLLM that refuses the caller's next request, in its words, and the
gauge is shared through Redis where LiteLLM's is.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litellm.proxy import proxy_server
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.hooks.parallel_request_limiter_v3 import (
    ParallelSlotAcquisition,
    RateLimitDescriptor,
    _PROXY_MaxParallelRequestsHandler_v3,
)

from plugins.proxy.disconnect import to_the_end

ALWAYS = 2**31 - 1
"""As the limit: what has begun is counted, and never refused half way."""


@asynccontextmanager
async def parallel_slot(auth: UserAPIKeyAuth) -> AsyncIterator[None]:
    """One of the caller's `max_parallel_requests`, from here to the end of the block, however it ends.

    Nothing is taken for a caller without that limit, nor where LiteLLM's older limiter is switched on
    (`LEGACY_MULTI_INSTANCE_RATE_LIMITING`).
    """
    limiter = proxy_server.proxy_logging_obj.get_proxy_hook("parallel_request_limiter")
    if (
        auth.max_parallel_requests is None
        or not auth.api_key
        or not isinstance(limiter, _PROXY_MaxParallelRequestsHandler_v3)
    ):
        yield
        return
    descriptor = RateLimitDescriptor(
        key="api_key", value=auth.api_key, rate_limit={"max_parallel_requests": ALWAYS}
    )
    gauge = limiter.create_rate_limit_keys("api_key", auth.api_key, "max_parallel_requests")
    slot = ParallelSlotAcquisition(slot_id=uuid.uuid4().hex, counter_keys=[gauge])
    taking: asyncio.Task[Any] = asyncio.create_task(
        limiter.should_rate_limit([descriptor], parallel_slot_id=slot["slot_id"])
    )

    async def give_back() -> None:
        await asyncio.wait([taking])  # a slot taken after it was given back would stay
        await limiter._release_parallel_request_slots(slot)

    try:
        await asyncio.shield(taking)
        yield
    finally:
        await to_the_end(give_back())
