"""One line of the log for each chat request, with what it took; its spans, and its copy where it is kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from litellm.proxy import proxy_server
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import ModelResponseStream

from plugins.collections.exchanges import Exchange, ExchangeLog
from plugins.core.errors import BundleError
from plugins.core.logs import GONE, log_request, status_of
from plugins.proxy.auth import principal_of
from plugins.proxy.disconnect import current_request
from plugins.proxy.exchange import Said, asked_of
from plugins.proxy.loop import Output, Sources, Turn
from plugins.proxy.tracing import ChatSpans

log = logging.getLogger(__name__)

ROUTES = {
    "acompletion": "/v1/chat/completions",
    "aresponses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
}
"""The names of the chat APIs in logs, by LiteLLM's call types: the same for their aliases."""
HELD = "_litellm_collections_answering"
"""Of LiteLLM's logging object, and of the request's state: not every hook is given the one or the other."""
OTHER = "other"
"""In the place of a model's name that this proxy does not know."""
LONGEST = 255
"""Characters of a model's name in the log."""
TOKENS = {
    "prompt_tokens": ("prompt_tokens", "input_tokens"),
    "completion_tokens": ("completion_tokens", "output_tokens"),
}
"""By their names in the log: those that the APIs have for them."""


class Answering:
    """A chat request, from when it is taken until its client has the answer.

    Args:
        data: The request, before anything of ours is in it.
        auth: Whose it is.
        call_type: LiteLLM's.
        kept: Where a copy goes; None = nowhere.
    """

    def __init__(
        self, data: Mapping[str, Any], auth: UserAPIKeyAuth, call_type: str, kept: ExchangeLog | None
    ) -> None:
        self.turn: Turn | None = None
        self.spans: ChatSpans | None = None
        self._began, self._at = time.monotonic(), time.time()
        self._route = ROUTES[call_type]
        self._request_id = str(data.get("litellm_call_id", ""))
        self._user_id = _user_id(auth)
        self._model = str(data.get("model", ""))
        self._team_id = auth.team_id
        self._ended = False
        self._tokens: dict[str, int] = {}
        self._kept = kept if kept is not None and kept.keeps(self._route) else None
        if self._kept is not None:
            self._asked, self.said = asked_of(data, _sent()), Said(self._kept.max_bytes)

    def check(self) -> None:
        """Whether it may be answered.

        Raises:
            Upstream: It is to be kept, and cannot be.
        """
        if self._kept is not None:
            self._kept.check()

    async def watched(self, outputs: AsyncGenerator[Output, None]) -> AsyncGenerator[Output, None]:
        """The loop's output as it is."""
        async with aclosing(outputs):
            async for output in outputs:
                self._count(output)
                if self._kept is not None:
                    if isinstance(output, Sources):
                        self.said.cited = output.cited
                    elif isinstance(output, ModelResponseStream):
                        self.said.add(output)
                yield output

    def hear(self, piece: Any) -> None:
        """A piece of an answer that is LiteLLM's alone."""
        self._count(piece)
        if self._kept is not None:
            self.said.add(piece)

    def answered(self, response: Any) -> None:
        """A plain answer is complete, as the client gets it. Of a stream nothing is known yet; whether it is
        one, the request does not tell: LiteLLM may answer one that asks for a stream as a whole."""
        if response is None or hasattr(response, "__aiter__"):
            return
        if self.turn is None:
            self.hear(response)
        self.end()

    def end(self, error: BaseException | None = None) -> None:
        """The client has its answer, or will get none; what comes later is of no account."""
        if self._ended:
            return
        self._ended = True
        done = self._done()
        status = _status(error)
        if error is not None:
            done["error"] = type(error).__name__
        if self.spans is not None:
            self.spans.end(error, **done)
            if not isinstance(error, Exception):
                self.spans.end_request(status)
        log_request(
            log,
            "POST",
            self._route,
            status,
            self._began,
            request_id=self._request_id,
            user_id=self._user_id,
            numbers={"model": _known(self._model, self._team_id), **done, **self._tokens},
        )
        if self._kept is not None:
            self._keep(self._kept, status)

    def _count(self, piece: Any) -> None:
        """Note the tokens, where a piece says them: of our answers the last, of all rounds."""
        whole = getattr(piece, "response", piece)
        self._tokens |= _tokens(
            whole.get("usage") if isinstance(whole, dict) else getattr(whole, "usage", None)
        )

    def _done(self) -> dict[str, str | int]:
        if self.turn is None:
            return {}
        calls = [*self.turn.searched, *self.turn.tools.ran]
        rounds = self.spans.rounds if self.spans else 1
        return {"rounds": rounds, "tools": len(calls), "passages": len(self.turn.citations.given)}

    def _keep(self, kept: ExchangeLog, status: int) -> None:
        given = self.turn.citations.given.values() if self.turn else ()
        answer = {"status": status, **self.said.answer(given)}
        row = Exchange(
            self._at, self._user_id, self._request_id, self._route, self._model, self._asked, answer
        )
        kept.note(row)


def hold(data: Mapping[str, Any], answering: Answering) -> None:
    """Keep it where `held` and `held_here` find it."""
    if (logging_object := data.get("litellm_logging_obj")) is not None:
        setattr(logging_object, HELD, answering)
    if (request := current_request()) is not None:
        setattr(request.state, HELD, answering)


def held(data: Mapping[str, Any]) -> Answering | None:
    """That of the request with this data."""
    found: Answering | None = getattr(data.get("litellm_logging_obj"), HELD, None)
    return found


def held_here() -> Answering | None:
    """That of the running task's request."""
    request = current_request()
    return getattr(request.state, HELD, None) if request is not None else None


def _sent() -> dict[str, Any] | None:
    """The body of the running task's request as LiteLLM read it, without what LiteLLM adds for itself."""
    request = current_request()
    read = request.scope.get("parsed_body") if request is not None else None
    if not isinstance(read, tuple):
        return None
    names, body = read
    return {name: body[name] for name in names}


def _known(model: str, team_id: str | None) -> str:
    """The name, where the proxy has a model of it: any other is a client's text."""
    router = proxy_server.llm_router
    if router is None or not router.get_model_list(model_name=model, team_id=team_id):
        return OTHER
    return model[:LONGEST]


def _tokens(usage: Any) -> dict[str, int]:
    """Of an answer, as far as its usage says them."""
    told = usage if isinstance(usage, Mapping) else getattr(usage, "__dict__", {})
    return {
        name: told[other]
        for name, others in TOKENS.items()
        for other in others
        if isinstance(told.get(other), int) and told[other]
    }


def _user_id(auth: UserAPIKeyAuth) -> str:
    try:
        return principal_of(auth).user_id
    except BundleError:
        return ""


def _status(error: BaseException | None) -> int:
    if error is None:
        return 200
    if isinstance(error, GeneratorExit | asyncio.CancelledError):
        return GONE
    return status_of(error)
