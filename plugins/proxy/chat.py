"""LiteLLM's hooks around its chat APIs: who is offered our tools, and the loop around the answer.

A request that asks for nothing of ours passes untouched, and so does every API that is not in `APIS`, but for
responses over a WebSocket, which are refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import litellm
from litellm.caching.dual_cache import DualCache
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import LLMResponseTypes, ModelResponse

from crawler.errors import CrawlError
from plugins.core.chat_config import ChatConfig
from plugins.core.errors import BundleError, InvalidRequest
from plugins.core.logs import about
from plugins.core.metrics import answered
from plugins.proxy import asked as asking
from plugins.proxy import guardrails, handover, turns
from plugins.proxy.access_log import Answering, held, held_here, hold
from plugins.proxy.apis.api import Api
from plugins.proxy.apis.chat_completions import ChatCompletions
from plugins.proxy.apis.messages import Messages
from plugins.proxy.apis.responses import Responses
from plugins.proxy.auth import Refusal, principal_of
from plugins.proxy.caches import count, fence
from plugins.proxy.disconnect import first_round_paid, while_connected
from plugins.proxy.loop import Loop, Output, Turn
from plugins.proxy.slots import parallel_slot
from plugins.proxy.tracing import ChatSpans
from plugins.proxy.upstream import ask_again, fallback_of

APIS: dict[str, Callable[[dict[str, Any], ChatConfig], Api]] = {
    "acompletion": lambda data, config: ChatCompletions(data, config.open_webui),
    "aresponses": lambda data, _: Responses(data),
    "anthropic_messages": lambda data, _: Messages(data),
}
"""By LiteLLM's call types."""
BEGUN = "_litellm_collections_begun"
"""Of LiteLLM's logging object: the one thing of a request that all hooks get, that no client sets, and that
is gone with the request, however it ends."""
WEBSOCKET = "_aresponses_websocket"
"""LiteLLM's call type of a connection to `/v1/responses`: no hook is told of its frames, each a request."""
LIMITER = "parallel_request_limiter"
"""LiteLLM's name of the hook that counts requests and tokens a minute, and requests at once."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A request in which our tools take part, between the hooks."""

    turn: Turn
    api: Api
    answering: Answering
    spans: ChatSpans


class ChatHooks(CustomLogger):
    """The one entry of `litellm_settings.callbacks`.

    Args:
        parts: Gives the parts of this moment; a request keeps those that it began with.
    """

    def __init__(self, parts: Callable[[], turns.ChatParts]) -> None:
        super().__init__()
        self._parts = parts

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: dict[str, Any], call_type: str
    ) -> dict[str, Any] | None:
        """Offer our tools where they are asked for.

        Raises:
            ChatRefusal: What was asked for is not valid, or not allowed.
        """
        fence(data)
        if call_type == WEBSOCKET:
            message = "`/v1/responses` is not served over a WebSocket here: send each request as POST."
            raise ChatRefusal(InvalidRequest(message), str(data.get("litellm_call_id", "")))
        if call_type not in APIS:
            return None
        self._take_place()
        answering = Answering(data, user_api_key_dict, call_type, self._parts().exchanges)
        hold(data, answering)
        traces = handover.take(data)
        try:
            answering.check()
            asked = asking.read(data, turns.rag_of(data.get("model")))
            if asked is None:
                return None
            if asking.is_background_task(data) and (asking.is_open_webui(data) or not asked.by_client):
                asking.strip(data)  # a connection's header may name collections for every request
                return data
            parts = self._parts()
            fence(data, ours=True)
            api = APIS[call_type](data, parts.config)
            traces = traces or handover.take(api.chat)
            asking.strip(data)
            asking.strip(api.chat)
            if api.chat.get("tool_choice") == "none":
                asking.drop_empty_tools(data)
                return data
            principal = principal_of(user_api_key_dict)
            about(request_id=str(data.get("litellm_call_id", "")), user_id=principal.user_id)
            spans = answering.spans = ChatSpans(user_api_key_dict)
            spans.take(api.chat)
            with spans.within():
                turn = answering.turn = await while_connected(turns.begin(parts, principal, asked, api.chat))
                if turn is not None and traces:
                    restored = await handover.restored(api.chat["messages"], traces, turn.tools)
                    api.chat["messages"] = await turn.fit(restored)
        except (BundleError, CrawlError) as error:
            raise ChatRefusal(error, str(data.get("litellm_call_id", ""))) from error
        if turn is None:
            answering.spans = None
            spans.leave(data)
        else:
            spans.begin_round()
            spans.take(data)
            data["cache"] = dict(turn.cache)
            api.offer(turn.offered)
            setattr(data["litellm_logging_obj"], BEGUN, Begun(turn, api, answering, spans))
        return data

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """The stream of the whole loop; another's stream as it is."""
        begun, answering = _begun(request_data, response), held(request_data)
        pieces = response if begun is None else self._pieces(begun, response, request_data, user_api_key_dict)
        try:
            async for piece in pieces:
                if begun is None and answering is not None:
                    answering.hear(piece)
                yield piece
        except BaseException as error:  # also when the client goes away
            if answering is not None:
                answering.end(error)
            raise
        finally:
            if begun is not None:
                await pieces.aclose()
        if answering is not None:
            answering.end()

    async def _pieces(
        self, begun: Begun, first: Any, data: dict[str, Any], auth: UserAPIKeyAuth
    ) -> AsyncGenerator[Any, None]:
        """What the client gets of the loop."""
        turn, api = begun.turn, begun.api
        pieces = api.stream(self._loop(begun, first, auth), turn.citations)
        blind = guardrails.without_stream_hook(data)
        sent: list[Any] = []
        try:
            async for piece in pieces:
                if blind and (answer := api.answer_at(sent, piece)) is not None:
                    await guardrails.show(blind, answer, data, auth)
                if blind:
                    sent.append(piece)
                yield piece
        except (BundleError, CrawlError) as error:
            raise ChatRefusal(error, turn.call.request_id) from error
        finally:
            await pieces.aclose()

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: LLMResponseTypes
    ) -> Any:
        """The plain answer of the whole loop: the same stream, collected."""
        begun = _begun(data, response)
        if begun is None:
            return None
        turn, api = begun.turn, begun.api
        if isinstance(response, ModelResponse) and turn.is_answered_by(response.choices[0].message):
            response.model = fallback_of(response) or response.model
            answered(1, given=0, cited=0, limit=None)
            begun.answering.hear(response)
            return None
        outputs = self._loop(begun, response, user_api_key_dict)
        try:
            async with aclosing(outputs):
                with first_round_paid(data["litellm_logging_obj"]):
                    answer = await while_connected(api.plain(outputs, turn.citations, response))
        except (BundleError, CrawlError) as error:
            raise ChatRefusal(error, turn.call.request_id) from error
        # Guardrails ran on round one before this hook: they must see what the client will get. The turn
        # is gone, so this does not come here again.
        return await proxy_server.proxy_logging_obj.post_call_success_hook(
            data=data, response=answer, user_api_key_dict=user_api_key_dict
        )

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: UserAPIKeyAuth,
        response: object,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: dict[str, object] | None = None,
    ) -> None:
        """The last of the hooks of a plain answer."""
        if (answering := held(data)) is not None:
            answering.answered(response)

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: UserAPIKeyAuth,
        traceback_str: str | None = None,
    ) -> None:
        """There is no answer, or no more of it."""
        if (answering := held_here()) is not None:
            answering.end(original_exception)

    def _loop(self, begun: Begun, first: Any, auth: UserAPIKeyAuth) -> AsyncGenerator[Output, None]:
        turn, chat = begun.turn, begun.api.chat
        ask = ask_again(chat, first, turn.structured, turn.cache)
        loop = Loop(turn, chat["messages"], ask, parallel_slot(auth), begun.spans)
        return begun.answering.watched(loop.run(begun.api.chunks(first)))

    def _take_place(self) -> None:
        """Stand behind LiteLLM's limiter: what it refuses must not have searched, nor asked a model. And
        before all guardrails: a stream goes through the callbacks in their order."""
        if self not in litellm.callbacks:
            return
        limiter = proxy_server.proxy_logging_obj.get_proxy_hook(LIMITER)
        others = [callback for callback in litellm.callbacks if callback is not self]
        plain = [callback for callback in others if not isinstance(callback, CustomGuardrail)]
        behind = plain.index(limiter) + 1 if limiter in plain else 0
        ordered = [*plain[:behind], self, *(other for other in others if other not in plain[:behind])]
        if ordered != litellm.callbacks:
            litellm.callbacks[:] = ordered


def _begun(data: dict[str, Any], first: Any) -> Begun | None:
    """What was begun for the request, once, with its first round."""
    begun: Begun | None = (
        vars(data["litellm_logging_obj"]).pop(BEGUN, None) if data.get("litellm_logging_obj") else None
    )
    if begun is not None:
        count(first, begun.turn.cache)
    return begun


class ChatRefusal(Refusal):
    """A refusal that LiteLLM may also have to put into a stream."""

    def __init__(self, error: BundleError | CrawlError, request_id: str) -> None:
        super().__init__(cast("BundleError", error), request_id)  # the table of errors knows both families
        self.status_code = int(self.code)
