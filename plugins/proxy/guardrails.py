"""LiteLLM's `post_call` guardrails, made to see the final answer of the loop.

Those that read streams are wrapped around the loop's stream by LiteLLM, because the hooks stand before
them. Those with only the plain hook would be shown the first round alone: the model's call of our tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import litellm
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.proxy import proxy_server
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.utils import check_and_merge_model_level_guardrails
from litellm.types.guardrails import GuardrailEventHooks

STREAM_HOOK = "async_post_call_streaming_iterator_hook"


def without_stream_hook(data: dict[str, Any]) -> list[CustomGuardrail]:
    """The guardrails for this request that read plain answers only."""
    blind = [
        guardrail
        for guardrail in litellm.callbacks
        if isinstance(guardrail, CustomGuardrail)
        and STREAM_HOOK not in vars(type(guardrail))
        and ("apply_guardrail" not in vars(type(guardrail)) or guardrail.use_native_lifecycle_hooks)
    ]
    if not blind:
        return []
    merged = check_and_merge_model_level_guardrails(data=data, llm_router=proxy_server.llm_router)
    event = GuardrailEventHooks.post_call
    return [g for g in blind if g.should_run_guardrail(data=merged, event_type=event) is True]


async def show(
    guardrails: Sequence[CustomGuardrail],
    answer: Any,
    data: dict[str, Any],
    auth: UserAPIKeyAuth,
) -> None:
    """Show them the whole streamed answer. What they raise ends the stream; what they change is too late."""
    for guardrail in guardrails:
        await guardrail.async_post_call_success_hook(data=data, user_api_key_dict=auth, response=answer)
