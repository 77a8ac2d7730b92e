"""What the vector store's own rights let each caller do; for collections of the kind `milvus`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from crawler.errors import CredentialRefused, StoreDenied, StoreError, StoreUnavailable
from crawler.store import Privileges, Store
from plugins.core.errors import BundleError, LimitReached
from plugins.core.identity import Principal, Right

log = logging.getLogger(__name__)

LISTING_S = 1.0
"""So long a caller's own listing counts, and with it that the store still accepts the credential."""
TIMEOUT_S = 5.0
"""Of asking the store about a caller."""
MAX_CALLERS = 1024
MAX_GUESSES = 20
"""Credentials of one person that the store refused within `GUESSES_S`; then no other is tried for them."""
GUESSES_S = 60.0
TOO_MANY = "Milvus refused too many credentials of yours. Wait a minute, and send the right one."


@dataclass(frozen=True, slots=True)
class Standing:
    """What one caller may do in the store."""

    visible: frozenset[str] = frozenset()
    """Physical names, as listed when asked as the caller."""
    privileges: Privileges = field(default_factory=Privileges)
    problem: StoreError | BundleError | None = None
    """Why nothing could be told: the credential is not accepted, too many were not, or the store does not
    answer."""

    def rights(self, name: str) -> frozenset[Right]:
        """The rights to the collection of this physical name."""
        seen: frozenset[Right] = frozenset({"discover"} if name in self.visible else ())
        return self.privileges.on(name) | seen

    def check(self) -> None:
        """Raises why nothing could be told, where that is so."""
        if self.problem is not None:
            raise type(self.problem)(self.problem.message) from self.problem


NOBODY = Standing()


@dataclass(slots=True)
class _Entry:
    tried_by: str = ""
    """Whose guess it is, until the store has answered."""
    standing: Standing = NOBODY
    asked_at: float = 0.0
    """In seconds since 1970."""
    listed_until: float = 0.0
    privileges_until: float = 0.0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Guesses:
    """How many credentials of each person the store refused in the running minute. One that is being asked
    about counts until it was accepted, so many at once gain nothing."""

    def __init__(self) -> None:
        self._counted: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def begin(self, user_id: str) -> bool:
        """Whether the person may try another."""
        began, number = self._counted.pop(user_id, (time.monotonic(), 0))
        if time.monotonic() - began >= GUESSES_S:
            began, number = time.monotonic(), 0
        self._counted[user_id] = (began, min(number + 1, MAX_GUESSES + 1))
        if len(self._counted) > MAX_CALLERS:
            self._counted.popitem(last=False)
        return number < MAX_GUESSES

    def undo(self, user_id: str) -> None:
        """The try was none: the credential is good, or nothing could be told."""
        if user_id in self._counted:
            began, number = self._counted[user_id]
            self._counted[user_id] = (began, max(0, number - 1))


class Standings:
    """Asks the store, and remembers the answers for seconds; by the hash of the whole credential, so that
    nobody gets what another's credential opened.

    Args:
        store: The vector store.
        privileges_s: How long the privileges of a caller's roles count: how late a revocation may be seen.
    """

    def __init__(self, store: Store[Any], privileges_s: float) -> None:
        self._store = store
        self._privileges_s = privileges_s
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._guesses = _Guesses()

    async def of(self, principal: Principal, since: float = 0.0) -> Standing:
        """What the principal may do; nothing without a credential of their own. Does not raise.

        Args:
            principal: Who asks.
            since: Seconds since 1970; a listing from before does not count.
        """
        credential = principal.store_credential
        if credential is None or not self._store.has_rights:
            return NOBODY
        key = hashlib.sha256(credential.get_secret_value().encode()).digest()
        entry = self._entries.get(key)
        if entry is None:
            if not self._guesses.begin(principal.user_id):
                return Standing(problem=LimitReached(TOO_MANY))
            entry = self._entries[key] = _Entry(tried_by=principal.user_id)
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_CALLERS:
            self._entries.popitem(last=False)
        async with entry.asking:
            if time.monotonic() >= entry.listed_until or entry.asked_at < since:
                await self._ask(entry, credential)
        return entry.standing

    async def _ask(self, entry: _Entry, credential: SecretStr) -> None:
        started, entry.asked_at = time.monotonic(), time.time()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                visible = await self._visible(credential)
                if started >= entry.privileges_until:
                    privileges = await self._privileges(credential)
                    entry.privileges_until = started + self._privileges_s
                else:
                    privileges = entry.standing.privileges
            entry.standing = Standing(visible, privileges)
        except TimeoutError:
            entry.standing, entry.privileges_until = Standing(problem=StoreUnavailable()), 0.0
        except StoreError as error:
            entry.standing, entry.privileges_until = Standing(problem=error), 0.0
        if entry.tried_by and not isinstance(entry.standing.problem, CredentialRefused):
            self._guesses.undo(entry.tried_by)
        entry.tried_by = ""
        # From the end, so that those who wait behind a question that took long need not ask it again.
        entry.listed_until = time.monotonic() + LISTING_S

    async def _visible(self, credential: SecretStr) -> frozenset[str]:
        try:
            return await self._store.visible(credential)
        except StoreDenied:
            return frozenset()

    async def _privileges(self, credential: SecretStr) -> Privileges:
        try:
            return await self._store.privileges(credential)
        except StoreUnavailable:
            raise
        except StoreError:
            log.exception(
                "The store does not tell what callers may do, so they may do nothing: its service credential "
                "needs the privileges SelectUser and SelectOwnership"
            )
            return Privileges()
