"""One client of Milvus: opened at first use, and every way it fails as one of our errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc  # type: ignore[import-untyped]
from pydantic import SecretStr
from pymilvus import AsyncMilvusClient, MilvusException  # type: ignore[import-untyped]

from crawler.errors import (
    ConfigError,
    CredentialRefused,
    StoreDenied,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from crawler.stores._embedded import private_directory, socket_path

if TYPE_CHECKING:
    from crawler.stores.milvus import MilvusSettings

# pymilvus logs every failed call with its filter and the server's address; the caller logs our error.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

T = TypeVar("T")

NOT_CONNECTED = 2
OLD_NOT_FOUND, NOT_FOUND = 4, 100
RATE_LIMIT = 8
NOT_LOADED = 101
NOT_AUTHENTICATED, NOT_PERMITTED = 1400, 1401

_UNAVAILABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
    }
)


class Connection:
    """The client of one event loop.

    pymilvus opens a new channel by itself when a call finds the old one broken.

    Args:
        make: Makes the client.
        timeout_s: Of one request.
        of_caller: It has the credential of a caller, whom the server may refuse. That it refuses ours is a
            mistake of the settings, which is not for callers to hear of.
    """

    def __init__(
        self, make: Callable[[], AsyncMilvusClient], timeout_s: float, *, of_caller: bool = False
    ) -> None:
        self._make = make
        self._timeout_s = timeout_s
        self._of_caller = of_caller
        self._client: AsyncMilvusClient | None = None
        self._opening = asyncio.Lock()
        self._running = 0

    @property
    def idle(self) -> bool:
        """Whether no request runs."""
        return self._running == 0

    async def call(self, request: Callable[[AsyncMilvusClient], Awaitable[T]]) -> T:
        """The answer to ``request``.

        Raises:
            StoreUnavailable: No connection, or no answer in time.
            CredentialRefused: The server does not accept the caller's user and password.
            StoreDenied: The server's rights do not allow it to the caller.
            StoreRefused: The server said no for another reason, or to this service.
        """
        self._running += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await request(self._client or await self._open())
        except TimeoutError as error:
            raise StoreUnavailable from error
        except (grpc.RpcError, MilvusException) as error:
            found = translated(error)
            ours = isinstance(found, CredentialRefused | StoreDenied) and not self._of_caller
            raise (StoreRefused() if ours else found) from error
        finally:
            self._running -= 1

    async def loaded(self, name: str, request: Callable[[AsyncMilvusClient], Awaitable[T]]) -> T:
        """The answer to ``request`` of a collection; one that was released is loaded first. The time of one
        request is for all of it: a server that has just started goes on loading, for the next one."""
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self.call(request)
                except StoreRefused as error:
                    if code(error) != NOT_LOADED:
                        raise
                await self.call(lambda client: client.load_collection(name))
                return await self.call(request)
        except TimeoutError as error:
            raise StoreUnavailable from error

    async def _open(self) -> AsyncMilvusClient:
        async with self._opening:
            if self._client is None:
                client = self._make()
                try:
                    await client.get_server_version()
                except BaseException:
                    await self._close(client)
                    raise
                self._client = client
            return self._client

    async def close(self) -> None:
        """Close the channel; harmless when repeated."""
        client, self._client = self._client, None
        if client is not None:
            await self._close(client)

    async def _close(self, client: AsyncMilvusClient) -> None:
        with contextlib.suppress(grpc.RpcError, MilvusException, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await client.close()


def code(error: BaseException | None) -> int | None:
    """Milvus's error code behind one of our errors."""
    found = getattr(error.__cause__ if isinstance(error, StoreError) else error, "code", None)
    return found if isinstance(found, int) else None


def unimplemented(error: StoreError) -> bool:
    """Whether the server does not know this call at all."""
    return _grpc_status(error.__cause__) is grpc.StatusCode.UNIMPLEMENTED


def denied(error: StoreError) -> bool:
    """Whether the server's rights do not allow it."""
    status = _grpc_status(error.__cause__)
    return status is grpc.StatusCode.PERMISSION_DENIED or code(error) == NOT_PERMITTED


def translated(error: grpc.RpcError | MilvusException) -> StoreError:
    """Our error; pymilvus reports an unreachable server and a refused password with the same code, and
    which it was only in the gRPC error that it came from."""
    status, number = _grpc_status(error), getattr(error, "code", None)
    if status is grpc.StatusCode.UNAUTHENTICATED or number == NOT_AUTHENTICATED:
        return CredentialRefused()
    if status is grpc.StatusCode.PERMISSION_DENIED or number == NOT_PERMITTED:
        return StoreDenied()
    if status is not None:
        return StoreUnavailable() if status in _UNAVAILABLE else StoreRefused()
    if not isinstance(error, MilvusException):
        return StoreUnavailable()
    if error.code in (NOT_CONNECTED, RATE_LIMIT) or error.retriable:
        return StoreUnavailable()
    if error.code in (OLD_NOT_FOUND, NOT_FOUND):
        return StoreRefused("The vector store has no such collection.")
    return StoreRefused()


def _grpc_status(error: BaseException | None) -> grpc.StatusCode | None:
    for found in (error, error and error.__cause__, error and error.__context__):
        status = getattr(found, "code", None)
        status = status() if callable(status) else status
        if isinstance(status, grpc.StatusCode):
            return status
    return None


def open_client(settings: MilvusSettings, credential: SecretStr | None = None) -> AsyncMilvusClient:
    """A client as the settings say; it connects at its first call.

    Args:
        settings: Where the server is, and the service's own credential.
        credential: The one to use instead.

    Raises:
        StoreRefused: The embedded store's directory is not ours alone.
    """
    options: dict[str, Any] = {}
    if settings.embedded:
        try:
            private_directory(settings.directory)
            uri = f"unix:{socket_path(settings.directory)}"
        except ConfigError as error:
            raise StoreRefused("The embedded store's directory is not private to this service.") from error
        # A local server dies with its process, and it takes pings every ten seconds for an attack.
        options["grpc.keepalive_time_ms"] = 2**31 - 1
    else:
        uri = settings.uri
    # Else a new channel inherits the wait that the broken one had reached.
    options["grpc.use_local_subchannel_pool"] = 1
    secrets = {"password": settings.password, "token": settings.token}
    if credential is not None:
        secrets = {"token": credential}
    return AsyncMilvusClient(
        uri,
        user=settings.user or "" if credential is None else "",
        db_name=settings.database or "",
        timeout=settings.timeout_s,
        dedicated=True,
        grpc_options=options,
        **{name: secret.get_secret_value() for name, secret in secrets.items() if secret},
        **_tls(settings),
    )


def _tls(settings: MilvusSettings) -> dict[str, str]:
    named = {"server_name": settings.server_name or ""}
    if settings.client_cert_file:
        return named | {
            "ca_pem_path": str(settings.ca_file),
            "client_pem_path": str(settings.client_cert_file),
            "client_key_path": str(settings.client_key_file),
        }
    return named | {"server_pem_path": str(settings.ca_file or "")}
