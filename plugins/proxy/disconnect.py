"""A client that goes away in the middle of its answer: what runs for it is ended, what came is paid for.

A streamed answer is closed by LiteLLM when its client is gone. A plain one is not: nobody listens to the
connection while the hooks work (LiteLLM's `cancel_on_disconnect` covers its own call of the model only).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import litellm
from fastapi import HTTPException, Request
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
from litellm.proxy.hooks.parallel_request_limiter_v3 import get_or_create_request_stash
from litellm.types.utils import ModelResponseStream

from plugins.proxy.chunks import close

GONE = HTTPException(status_code=499, detail="Client disconnected the request")
"""As LiteLLM's own, which it logs as what it is and not as a fault. Nobody reads the answer."""
ENDING_S = 5.0
"""How long what was cancelled may take to end."""

T = TypeVar("T")
_request: ContextVar[Request | None] = ContextVar("request", default=None)
"""Hooks are not given the request; its authentication is."""
_unfinished: set[asyncio.Task[None]] = set()


def arrived(request: Request) -> None:
    """Say to whatever works for the request that it is for this one; called while it is authenticated."""
    _request.set(request)
    # LiteLLM's rate limiter notes the slot of `max_parallel_requests` in a context variable, first set where
    # its hooks run. Where keep-alive pings open the stream, that is a task of its own, and the slot would
    # not be found again to be given back: it would be lost for an hour.
    get_or_create_request_stash()


def current_request() -> Request | None:
    """The one that the running task works for."""
    return _request.get()


async def while_connected(answer: Coroutine[Any, Any, T]) -> T:
    """What ``answer`` returns; it is cancelled when the client goes away.

    Raises:
        HTTPException: 499, the client went away.
    """
    request = _request.get()
    if request is None:
        return await answer
    working = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and leaving.exception() is None:
            raise GONE
        return await working
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving}, timeout=ENDING_S)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextmanager
def first_round_paid(logging: Any) -> Iterator[None]:
    """Have a plain first round logged also where no answer comes of the later ones.

    Where there are `post_call` guardrails, LiteLLM puts its log off until they have seen the answer, and
    leaves it out where an error comes instead.

    Args:
        logging: The first round's logging object.
    """
    try:
        yield
    except BaseException:
        log = getattr(logging, "enqueue_deferred_logging", None)
        if log is not None:
            logging.enqueue_deferred_logging = None
            log()
        raise


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Have ``work`` done in a task of its own: when the client goes away, every `await` of the task that
    answers it may be cancelled."""
    task = asyncio.create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    await asyncio.shield(task)


class PaidStream:
    """A later round's stream. What came of it is logged and paid for also when it is left in the middle.

    LiteLLM logs a stream when it ends, and the first round's also when the client goes away. Its counters
    are used here as it does there (`_bill_partial_streamed_spend_on_disconnect`).

    Args:
        stream: From LiteLLM's router.
    """

    def __init__(self, stream: CustomStreamWrapper) -> None:
        self._stream = stream
        self._over = False

    @property
    def _hidden_params(self) -> dict[str, Any]:
        return self._stream._hidden_params

    def __aiter__(self) -> PaidStream:
        return self

    async def __anext__(self) -> ModelResponseStream:
        try:
            return await anext(self._stream)
        except Exception:
            self._over = True  # its end and its errors are logged by LiteLLM
            raise

    async def aclose(self) -> None:
        """End the round, and with it the provider's connection."""
        await to_the_end(self._close())

    async def _close(self) -> None:
        await close(self._stream)
        if self._over or litellm.disable_streaming_logging or not (chunks := self._stream.chunks):
            return
        self._over = True
        logging = self._stream.logging_obj
        part = litellm.stream_chunk_builder(chunks, self._stream.messages, logging_obj=logging)
        if part is not None:
            part.model = self._stream.model
            await logging.dispatch_success_handlers(part, cache_hit=False, prefer_async_handlers=True)
