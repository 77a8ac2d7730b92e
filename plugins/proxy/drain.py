"""The end of a proxy that is told to stop: it says so, answers what is asked meanwhile, then closes."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from litellm.proxy.shutdown.graceful_shutdown_manager import GracefulShutdownManager

from plugins.core.config import ShutdownConfig

log = logging.getLogger(__name__)

CLOSE = (b"connection", b"close")
CUT_OFF_S = 2.0
"""How long answers that are cut off may take to end."""


class Drain:
    """What SIGTERM does to uvicorn's server, in the process that serves.

    uvicorn itself closes its socket at once, while load balancers still send requests there, and waits for
    the last answer without a limit. With this, for `drain_s` it goes on, but says that it is not ready
    (LiteLLM's `/health/readiness`, our `/health/collections`) and asks clients to use no connection again;
    then it closes, and answers under way have `grace_s`. A second SIGTERM closes at once.

    Args:
        server: The one that runs; its `handle_exit` is what it does on SIGTERM.
        settings: Those of the moment.
        stopping: Set at the beginning.
        close: Ends what must end in good order before the process does; blocks, called in a thread.
        finish: Awaited after the last answer. uvicorn raises the signal anew then, and nothing else runs.
    """

    def __init__(
        self,
        server: uvicorn.Server,
        settings: Callable[[], ShutdownConfig],
        stopping: asyncio.Event,
        close: Callable[[], None],
        finish: Callable[[], Awaitable[None]],
    ) -> None:
        self._server = server
        self._settings = settings
        self._stopping = stopping
        self._close = close
        self._finish = finish
        self._end_of_application = server.lifespan.shutdown
        server.lifespan.shutdown = self._end
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Runs between two steps of the loop, which it only tells."""
        self._loop.call_soon_threadsafe(self._begin, number, frame)

    def _begin(self, number: int, frame: FrameType | None) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(number, frame))
        else:
            self._server.handle_exit(number, frame)

    async def _drain(self, number: int, frame: FrameType | None) -> None:
        settings = self._settings()
        log.info("Stopping: not ready from now on, no new requests in %g s", settings.drain_s)
        GracefulShutdownManager.start_shutdown()
        self._stopping.set()
        config, state = self._server.config, self._server.server_state
        config.encoded_headers.append(CLOSE)
        state.default_headers = [*state.default_headers, CLOSE]  # those of the next second have it, too
        config.timeout_graceful_shutdown = settings.grace_s  # type: ignore[assignment]  # it takes any number
        await asyncio.sleep(settings.drain_s)
        try:
            await asyncio.to_thread(self._close)
        finally:
            self._server.handle_exit(number, frame)

    async def _end(self) -> None:
        if cut_off := set(self._server.server_state.tasks):
            await asyncio.wait(cut_off, timeout=CUT_OFF_S)
        await self._finish()
        await self._end_of_application()


def drain_on_sigterm(
    settings: Callable[[], ShutdownConfig],
    stopping: asyncio.Event,
    close: Callable[[], None],
    finish: Callable[[], Awaitable[None]],
) -> None:
    """Where it is uvicorn that serves, and we are in its main thread; other servers stop as they do."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if isinstance(server, uvicorn.Server) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, Drain(server, settings, stopping, close, finish).on_signal)
