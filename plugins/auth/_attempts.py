"""How often a password may be tried."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from plugins.core.errors import LimitReached
from plugins.core.metrics import SIGN_INS_LIMITED

TOO_MANY = "Too many failed sign-ins. Wait as long as `Retry-After` says, or sign in with a browser."
MAX_KEYS = 20_000
FORGET_S = 900.0
"""What failed longer ago does not count."""


class _Limit(NamedTuple):
    free: int
    """Failures without a delay; each further one doubles it, from one second on."""
    max_delay_s: float


PAIR = _Limit(5, 60)
"""Of one account from one address."""
ADDRESS = _Limit(20, 60)
ACCOUNT = _Limit(20, 15)
"""Of one account from everywhere: short, so that nobody can lock somebody else out for long."""


class _Failures(NamedTuple):
    number: int
    last: float


class Attempts:
    """Delays that grow with the failures of an account, of an address, and of the two together.

    In memory: each process counts for itself and forgets when it ends, so with several processes there are
    that many times the tries. The issuer's own protection against guessing is the one that counts for all.

    Source: OWASP Authentication Cheat Sheet, "Account Lockout" (exponential delays instead of a lock).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def begin(self, account: str, address: str) -> None:
        """Note a try, which counts as failed until `succeeded` or `undo`: so many at once gain nothing.

        Raises:
            LimitReached: It is too early for another; with the seconds to wait.
        """
        keys = _keys(account, address)
        wait = max(self._wait(key, limit) for key, limit in keys)
        if wait > 0:
            SIGN_INS_LIMITED.inc()
            raise LimitReached(TOO_MANY, retry_after_s=math.ceil(wait))
        now = self._clock()
        for key, _ in keys:
            self._failures[key] = _Failures(self._number(key) + 1, now)
            self._failures.move_to_end(key)
        while len(self._failures) > MAX_KEYS:
            self._failures.popitem(last=False)

    def succeeded(self, account: str, address: str) -> None:
        """The password was right. Only the failures of the two together are forgotten: with an account of
        their own nobody washes away those of their address, nor somebody's sign-in those of a guesser."""
        self.undo(account, address)
        (pair, _), *_ = _keys(account, address)
        self._failures.pop(pair, None)

    def undo(self, account: str, address: str) -> None:
        """The try told nothing: it does not count."""
        for key, _ in _keys(account, address):
            if key in self._failures:
                found = self._failures[key]
                self._failures[key] = found._replace(number=max(0, found.number - 1))

    def _number(self, key: str) -> int:
        found = self._failures.get(key)
        return found.number if found and self._clock() - found.last < FORGET_S else 0

    def _wait(self, key: str, limit: _Limit) -> float:
        over = self._number(key) - limit.free
        if over < 0:
            return 0.0
        delay = min(limit.max_delay_s, 2.0 ** min(over, 30))
        return self._failures[key].last + delay - self._clock()


def _keys(account: str, address: str) -> list[tuple[str, _Limit]]:
    name = hashlib.sha256(account.strip().casefold().encode()).hexdigest()  # of one length, however long
    return [(f"{name} {address}", PAIR), (f"address {address}", ADDRESS), (f"account {name}", ACCOUNT)]
