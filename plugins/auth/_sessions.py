"""Sessions of browsers: a cookie opens the tokens that an issuer gave, and the database alone does not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from pydantic import BaseModel, Field, SecretStr, ValidationError
from sqlalchemy import and_, delete, insert, select, update

from plugins.auth._claims import encoded
from plugins.collections.database import Database
from plugins.collections.tables import sessions
from plugins.core.errors import Forbidden, IdentityUnavailable, Unauthenticated, Upstream
from plugins.core.identity import Credential, Principal
from plugins.core.identity_config import SignInConfig
from plugins.core.ports import IdentitySource, SignIn, Tokens

COOKIE = "__Host-collections-session"
"""Browsers take a cookie of such a name only over TLS, from this very host and for all its paths."""
NAME = "session"

EARLY_S = 30.0
"""How long before its end an access token is replaced; a third of its life where that is shorter."""
REFRESH_S = 15.0
"""New tokens are there by then, or another request may ask for them."""
AGAIN_S = 2.0
"""An issuer that did not answer is asked again after this time."""
POLL_S = 0.05

ENDED = "Your session has ended. Sign in again."
FOREIGN = (
    "This request comes from a page of another site, so the session cookie does not count for it. "
    "Send an access token as `Authorization: Bearer ...`."
)
LINKED = ("/v1/collections/", "/api/auth/")
"""Where links of other sites may lead with the cookie: a citation in a chat's page is one."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_VALUE = re.compile(r"([\w-]{22})\.([\w-]{43})", re.ASCII)


class Session(BaseModel):
    """What a cookie opens."""

    source: str
    subject: str
    issuer_session: str | None
    access_token: str = Field(repr=False)
    refresh_token: str | None = Field(repr=False)
    refresh_at: float
    """When new tokens should be asked for, in seconds since 1970."""
    ends_at: float
    """When the access token ends."""

    def sealed(self, key: OctKey) -> str:
        return jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, self.model_dump_json(), key)


class _Row(NamedTuple):
    id: str
    key: OctKey
    sealed: str
    session: Session


class SessionSource(IdentitySource[SignInConfig]):
    """Whoever has the cookie of a session is who signed in; the source that they signed in at says who.

    The cookie is a random id and a random key. The row holds the id's SHA-256 and the tokens, sealed with
    the key (JWE, ``dir``, A256GCM): neither a stolen row nor a stolen database signs anybody in. The access
    token is replaced before its end, by one request at a time over all processes; when the issuer refuses
    that, the session is over.

    Sources: RFC 7516 (JWE), RFC 6265bis (the prefix ``__Host-``), Fetch Metadata (``Sec-Fetch-Site``).
    """

    def __init__(
        self,
        settings: SignInConfig,
        sources: Mapping[str, IdentitySource[Any]],
        database: Database,
        public_base_url: str,
    ) -> None:
        super().__init__(settings, NAME)
        self._sources = sources
        self._database = database
        self._origin = origin_of(public_base_url)
        self._tasks: set[asyncio.Task[Session]] = set()

    def accepts(self, credential: Credential) -> bool:
        return credential.bearer is None and cookie_of(credential.headers) is not None

    async def authenticate(self, credential: Credential) -> Principal:
        """Who has the session.

        Raises:
            Forbidden: A page of another site sent the request.
            Unauthenticated, IdentityUnavailable: As every source.
        """
        self.check_origin(credential.method, credential.headers, credential.path)
        session = await self._current(cookie_of(credential.headers) or "")
        bearer = replace(credential, bearer=SecretStr(session.access_token))
        principal = await self._source(session).authenticate(bearer)
        if principal.subject != session.subject:
            raise Unauthenticated(ENDED, why="session_ended")
        return principal

    def check_origin(self, method: str, headers: Mapping[str, str], path: str = "") -> None:
        """That a request with the cookie is of a page of ours, a person's own opening of an address, or a
        link to one of `LINKED`: elsewhere another site's link could make LiteLLM work at their expense.

        Raises:
            Forbidden: It is neither.
        """
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        ours = site == "same-origin" if site is not None else origin == self._origin
        if method in SAFE_METHODS:
            nobodys = origin is None if site is None else site == "none"
            linked = headers.get("sec-fetch-mode") == "navigate" and path.startswith(LINKED)
            ours = ours or nobodys or linked
        if not ours:
            raise Forbidden(FOREIGN)

    async def start(self, principal: Principal, tokens: Tokens) -> str:
        """A new session; answers the value of its cookie."""
        name, key = secrets.token_bytes(16), OctKey.import_key(secrets.token_bytes(32))
        session = _session(principal.source, principal.subject, principal.session, tokens)
        now = time.time()
        life = self.settings.session_s if session.refresh_token else tokens.expires_in
        row = {
            "id": _id(encoded(name)),
            "source": session.source,
            "subject": session.subject,
            "issuer_session": session.issuer_session,
            "sealed": session.sealed(key),
            "created_at": now,
            "expires_at": now + min(life, self.settings.session_s),
            "refreshing_until": 0.0,
        }
        async with self._database.write() as connection:
            await connection.execute(delete(sessions).where(sessions.c.expires_at < now))
            await connection.execute(insert(sessions).values(**row))
        return f"{encoded(name)}.{encoded(key.raw_value)}"

    async def end(self, cookie: str) -> Session | None:
        """Forget the session of a cookie; answers what it was, None where there was none."""
        try:
            row = await self._row(cookie)
        except Unauthenticated:
            return None
        await self._forget(row.id)
        return row.session

    def _source(self, session: Session) -> IdentitySource[Any]:
        if session.source not in self._sources:
            raise Unauthenticated(ENDED, why="session_ended")
        return self._sources[session.source]

    async def _current(self, cookie: str) -> Session:
        """The session, with an access token that is good now."""
        give_up = time.monotonic() + REFRESH_S
        while True:
            row = await self._row(cookie)
            now = time.time()
            if now < row.session.refresh_at:
                return row.session
            sign_in = self._source(row.session).sign_in
            if row.session.refresh_token and sign_in and await self._claim(row, now):
                return await self._refreshed(row, sign_in)
            if now < row.session.ends_at:
                return row.session
            if not row.session.refresh_token or not sign_in:
                await self._forget(row.id)
                raise Unauthenticated(ENDED, why="session_ended")
            if time.monotonic() > give_up:
                raise IdentityUnavailable
            await asyncio.sleep(POLL_S)  # another request, maybe of another process, asks the issuer

    async def _row(self, cookie: str) -> _Row:
        found = _VALUE.fullmatch(cookie)
        if found is None:
            raise Unauthenticated(ENDED, why="session_ended")
        own = and_(sessions.c.id == _id(found[1]), sessions.c.expires_at > time.time())
        try:
            async with self._database.read() as connection:
                row = (await connection.execute(select(sessions).where(own))).one_or_none()
        except Upstream as error:
            raise IdentityUnavailable from error
        if row is None:
            raise Unauthenticated(ENDED, why="session_ended")
        try:
            key = OctKey.import_key(base64.urlsafe_b64decode(found[2] + "="))
            plain = jwe.decrypt_compact(row.sealed, key, algorithms=["dir", "A256GCM"]).plaintext
            return _Row(row.id, key, row.sealed, Session.model_validate_json(plain or b""))
        except (JoseError, ValidationError, ValueError) as error:
            raise Unauthenticated(ENDED, why="session_ended") from error

    async def _claim(self, row: _Row, now: float) -> bool:
        """Whether it is this request that asks for new tokens: one does, also over several processes."""
        free = and_(
            sessions.c.id == row.id, sessions.c.sealed == row.sealed, sessions.c.refreshing_until < now
        )
        async with self._database.write() as connection:
            claimed = update(sessions).where(free).values(refreshing_until=now + REFRESH_S)
            return (await connection.execute(claimed)).rowcount == 1

    async def _refreshed(self, row: _Row, sign_in: SignIn) -> Session:
        task = asyncio.create_task(self._refresh(row, sign_in))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # shielded: the old refresh token may be used up, so the new one must be kept whoever goes away
        return await asyncio.shield(task)

    async def _refresh(self, row: _Row, sign_in: SignIn) -> Session:
        old, own = row.session, sessions.c.id == row.id
        try:
            async with asyncio.timeout(REFRESH_S - 1):
                tokens = await sign_in.refresh(SecretStr(old.refresh_token or ""))
        except Unauthenticated as error:
            await self._forget(row.id)
            raise Unauthenticated(ENDED, why="session_ended") from error
        except (IdentityUnavailable, TimeoutError) as error:
            async with self._database.write() as connection:
                again = time.time() + AGAIN_S
                await connection.execute(update(sessions).where(own).values(refreshing_until=again))
            if time.time() < old.ends_at:
                return old
            raise IdentityUnavailable from error
        if tokens.refresh_token is None:  # RFC 6749, section 6: the old one stays
            tokens = tokens.model_copy(update={"refresh_token": old.refresh_token})
        session = _session(old.source, old.subject, old.issuer_session, tokens)
        async with self._database.write() as connection:
            values = {"sealed": session.sealed(row.key), "refreshing_until": 0.0}
            await connection.execute(update(sessions).where(own).values(**values))
        return session

    async def _forget(self, identifier: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(sessions).where(sessions.c.id == identifier))


def _session(source: str, subject: str, issuer_session: str | None, tokens: Tokens) -> Session:
    now = time.time()
    return Session(
        source=source,
        subject=subject,
        issuer_session=issuer_session,
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token,
        refresh_at=now + tokens.expires_in - min(EARLY_S, tokens.expires_in / 3),
        ends_at=now + tokens.expires_in,
    )


def cookie_of(headers: Mapping[str, str]) -> str | None:
    """The value of the session's cookie in the headers of a request (lower-case names)."""
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def origin_of(url: str) -> str:
    """As browsers write it in ``Origin`` (RFC 6454): the port only where it is not the scheme's own."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    own = {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, own) else "")


def _id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
