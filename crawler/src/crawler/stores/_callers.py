"""Connections with the credentials of callers: each to itself, and a bounded number of them."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable

from pydantic import SecretStr

from crawler.stores._connection import Connection

MAX_CALLERS = 64


class Callers:
    """The connections of one event loop, by the hash of the whole credential; the least used one is closed.

    Args:
        connect: Makes a connection with a credential.
        limit: How many are kept.
    """

    def __init__(self, connect: Callable[[SecretStr], Connection], limit: int = MAX_CALLERS) -> None:
        self._connect = connect
        self._limit = limit
        self._open: OrderedDict[bytes, Connection] = OrderedDict()
        self._leaving: list[Connection] = []

    async def of(self, credential: SecretStr) -> Connection:
        """The connection of the credential's holder, who need not be known to the server."""
        key = hashlib.sha256(credential.get_secret_value().encode()).digest()
        connection = self._open.get(key) or self._open.setdefault(key, self._connect(credential))
        self._open.move_to_end(key)
        while len(self._open) > self._limit:
            self._leaving.append(self._open.popitem(last=False)[1])
        # One that still answers a request is closed at a later turn.
        done = [left for left in self._leaving if left.idle]
        self._leaving = [left for left in self._leaving if left not in done]
        await asyncio.gather(*(left.close() for left in done))
        return connection

    async def close(self) -> None:
        """Close all of them."""
        everything = [*self._open.values(), *self._leaving]
        self._open.clear()
        self._leaving.clear()
        await asyncio.gather(*(connection.close() for connection in everything))
