"""What an issuer says of tokens: asked rarely, kept briefly."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from pydantic import SecretStr

from plugins.core.errors import IdentityUnavailable, SignInFailure, Unauthenticated

T = TypeVar("T")

MAX_TOKENS = 10_000
REFUSED_S = 10.0
BURST = 50
PER_S = 10.0


class Answers(Generic[T]):
    """Asks about each token once, with one request in flight for it, and keeps the answer.

    Everything is kept by the hash of the whole token. Answers count from when they were asked for.
    Refusals are kept for ``REFUSED_S``. At most ``MAX_TOKENS`` answers of each kind are kept, and refusals
    push out no good answer. Bound to the event loop of its first use.

    Args:
        ask: The answer, and for how many seconds it may be kept; raises Unauthenticated where the token is
            not good, IdentityUnavailable where that cannot be told.
        untrusted: Whether anybody's text comes here as a token. Then those that were never good cost the
            issuer at most ``BURST`` requests at once and ``PER_S`` a second, whoever sends them; those above
            that raise IdentityUnavailable.
    """

    def __init__(self, ask: Callable[[SecretStr], Awaitable[tuple[T, float]]], *, untrusted: bool) -> None:
        self._ask = ask
        self._untrusted = untrusted
        self._good: OrderedDict[bytes, tuple[float, T]] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, tuple[str, SignInFailure]]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[T]] = {}
        self._left, self._counted = float(BURST), time.monotonic()

    async def about(self, token: SecretStr) -> T:
        """The answer for this token.

        Raises:
            Unauthenticated: It is not good.
            IdentityUnavailable: The issuer cannot be asked now.
        """
        digest = hashlib.sha256(token.get_secret_value().encode()).digest()
        now = time.monotonic()
        until, (message, why) = self._refused.get(digest, (now, ("", "invalid")))
        if now < until:
            raise Unauthenticated(message, why=why)
        known = self._good.get(digest)
        if known is not None and now < known[0]:
            self._good.move_to_end(digest)
            return known[1]
        if digest not in self._asking:
            if known is None and self._untrusted:
                self._spend(now)
            task = asyncio.create_task(self._asked(digest, token, is_new=known is None))
            task.add_done_callback(lambda done: self._done(digest, done))
            self._asking[digest] = task
        # shielded: the request that waits may be cancelled, others wait for the same answer
        return await asyncio.shield(self._asking[digest])

    async def close(self) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _asked(self, digest: bytes, token: SecretStr, *, is_new: bool) -> T:
        asked = time.monotonic()
        try:
            answer, lasts_s = await self._ask(token)
        except Unauthenticated as error:
            self._good.pop(digest, None)
            _keep(self._refused, digest, (asked + REFUSED_S, (error.message, error.why)))
            raise
        if is_new:
            self._left += 1
        _keep(self._good, digest, (asked + lasts_s, answer))
        return answer

    def _done(self, digest: bytes, task: asyncio.Task[T]) -> None:
        del self._asking[digest]
        if not task.cancelled():
            # seen, also where nobody waits any more
            task.exception()

    def _spend(self, now: float) -> None:
        self._left = min(self._left + (now - self._counted) * PER_S, BURST)
        self._counted = now
        if self._left < 1:
            raise IdentityUnavailable
        self._left -= 1


def _keep(kept: OrderedDict[bytes, T], digest: bytes, entry: T) -> None:
    kept[digest] = entry
    kept.move_to_end(digest)
    if len(kept) > MAX_TOKENS:
        kept.popitem(last=False)
