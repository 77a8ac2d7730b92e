"""LiteLLM's hooks around chat completions: who is offered our tools, and the loop around the answer.

A request that asks for nothing of ours passes untouched. `/v1/responses` and `/v1/messages` pass
untouched too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import litellm
from litellm.caching.dual_cache import DualCache
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import LLMResponseTypes, ModelResponse, ModelResponseStream

from crawler.errors import CrawlError
from plugins.core.errors import BundleError
from plugins.core.logs import about
from plugins.proxy import asked as asking
from plugins.proxy import guardrails, handover, turns
from plugins.proxy.apis import completions, open_webui
from plugins.proxy.auth import Refusal, principal_of
from plugins.proxy.chunks import as_stream
from plugins.proxy.loop import Loop, Turn
from plugins.proxy.slots import parallel_slot
from plugins.proxy.upstream import ask_again, fallback_of


@dataclass(frozen=True, slots=True)
class Begun:
    """A request in which our tools take part, between the hooks."""

    turn: Turn
    usage: bool
    """The client asked for a usage chunk."""
    open_webui: bool


class ChatHooks(CustomLogger):
    """The one entry of `litellm_settings.callbacks`.

    Args:
        parts: Gives the parts; called with the first request that needs them.
    """

    def __init__(self, parts: Callable[[], turns.ChatParts]) -> None:
        super().__init__()
        self._parts = parts
        # By LiteLLM's logging object: the one thing of a request that all hooks get, and that no client sets.
        self._begun: WeakKeyDictionary[Any, Begun] = WeakKeyDictionary()

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: dict[str, Any], call_type: str
    ) -> dict[str, Any] | None:
        """Offer our tools where they are asked for.

        Raises:
            ChatRefusal: What was asked for is not valid, or not allowed.
        """
        if call_type != "acompletion":
            return None
        self._come_first()
        traces = handover.take(data)
        try:
            asked = asking.read(data, turns.rag_of(data.get("model")))
            if asked is None or (asking.is_background_task(data) and not asked.by_client):
                return None
            asking.strip(data)
            if data.get("tool_choice") == "none":
                return data
            principal = principal_of(user_api_key_dict)
            about(request_id=str(data.get("litellm_call_id", "")), user_id=principal.user_id)
            turn = await turns.begin(self._parts(), principal, asked, data)
            if turn is not None and traces:
                data["messages"] = await handover.restored(data["messages"], traces, turn.tools)
        except (BundleError, CrawlError) as error:
            raise ChatRefusal(error, str(data.get("litellm_call_id", ""))) from error
        if turn is not None:
            begun = Begun(turn, completions.with_usage(data), asking.is_open_webui(data))
            self._begun[data["litellm_logging_obj"]] = begun
        return data

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """The stream of the whole loop; another's stream as it is."""
        begun = self._begun_of(request_data)
        if begun is None:
            async for chunk in response:
                yield chunk
            return
        turn = begun.turn
        outputs = self._loop(turn, request_data, response, user_api_key_dict).run(response)
        chunks = (
            open_webui.stream(outputs, turn.citations, usage=begun.usage)
            if begun.open_webui
            else completions.stream(outputs, usage=begun.usage)
        )
        blind = guardrails.without_stream_hook(request_data)
        sent: list[ModelResponseStream] = []
        try:
            async for chunk in chunks:
                if blind and chunk.choices and chunk.choices[0].finish_reason:
                    await guardrails.show(blind, sent, request_data, user_api_key_dict)
                if blind:
                    sent.append(chunk)
                yield chunk
        except (BundleError, CrawlError) as error:
            raise ChatRefusal(error, turn.call.request_id) from error
        finally:
            await chunks.aclose()

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: LLMResponseTypes
    ) -> Any:
        """The plain answer of the whole loop: the same stream, collected."""
        begun = self._begun_of(data)
        if begun is None or not isinstance(response, ModelResponse):
            return None
        self._begun.pop(data["litellm_logging_obj"])
        if begun.turn.is_answered_by(response.choices[0].message):
            response.model = fallback_of(response) or response.model
            return None
        outputs = self._loop(begun.turn, data, response, user_api_key_dict).run(as_stream(response))
        try:
            async with aclosing(outputs):
                answer = await completions.plain(outputs)
        except (BundleError, CrawlError) as error:
            raise ChatRefusal(error, begun.turn.call.request_id) from error
        answer._hidden_params = response._hidden_params
        answer.model = fallback_of(response) or answer.model
        # Guardrails ran on round one before this hook: they must see what the client will get. The turn
        # is gone, so this does not come here again.
        return await proxy_server.proxy_logging_obj.post_call_success_hook(
            data=data, response=answer, user_api_key_dict=user_api_key_dict
        )

    def _begun_of(self, data: dict[str, Any]) -> Begun | None:
        key = data.get("litellm_logging_obj")
        return None if key is None else self._begun.get(key)

    def _loop(self, turn: Turn, data: dict[str, Any], first: Any, auth: UserAPIKeyAuth) -> Loop:
        ask = ask_again(data, fallback_of(first), turn.structured)
        return Loop(turn, data["messages"], ask, parallel_slot(auth))

    def _come_first(self) -> None:
        """Stand before all guardrails in LiteLLM's callbacks: a stream goes through them in this order."""
        if litellm.callbacks and litellm.callbacks[0] is not self and self in litellm.callbacks:
            litellm.callbacks.remove(self)
            litellm.callbacks.insert(0, self)


class ChatRefusal(Refusal):
    """A refusal that LiteLLM may also have to put into a stream."""

    def __init__(self, error: BundleError | CrawlError, request_id: str) -> None:
        super().__init__(cast("BundleError", error), request_id)  # the table of errors knows both families
        self.status_code = int(self.code)
