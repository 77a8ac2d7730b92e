"""Fetching a document from an address that somebody gave us, without reaching into our own network.

Every host name is resolved by us, every address that it has must be public, and the connection goes to
the very address that was checked, so that a second answer of the DNS changes nothing. The same holds for
each redirect. No proxy and no credentials of the environment are used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import zlib
from collections.abc import Callable, Iterable
from email.message import Message
from pathlib import PurePosixPath
from urllib.parse import unquote

import httpcore
import httpx

from crawler.contracts import Frozen
from crawler.errors import DocumentTooLarge, FetchFailed, FetchRefused

MAX_REDIRECTS = 5
TIMEOUT_S = 20.0  # of one step
TOTAL_S = 300.0
_FAILURES = (httpx.HTTPError, httpcore.NetworkError, httpcore.TimeoutException, TimeoutError, zlib.error)
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291, section 2.4; without site-local and NAT64


class Fetched(Frozen):
    content: bytes
    filename: str
    media_type: str | None


def is_public(address: IPAddress) -> bool:
    """Whether the address is one of the public internet, also where IPv6 carries an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = (address.sixtofour, *(address.teredo or ()))
        if address not in GLOBAL_UNICAST:
            return False
        if any(carried is not None and not is_public(carried) for carried in inner):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections only to hosts all of whose addresses are allowed."""

    def __init__(self, allowed: Callable[[IPAddress], bool]) -> None:
        self._allowed = allowed
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=1), timeout)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("unknown host") from error
        addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
        if not addresses or not all(self._allowed(address) for address in addresses):
            raise FetchRefused()
        return await self._backend.connect_tcp(
            str(addresses[0]), port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(self, *args: object, **kwargs: object) -> httpcore.AsyncNetworkStream:
        raise FetchRefused()

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


def _client(allowed: Callable[[IPAddress], bool]) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(trust_env=False)
    # httpx has no parameter for the network backend of its pool; where that is elsewhere, nothing is fetched.
    if not isinstance(transport._pool, httpcore.AsyncConnectionPool):
        raise FetchRefused("This server cannot fetch addresses safely. Upload the file itself.")
    transport._pool = httpcore.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(), network_backend=GuardedBackend(allowed)
    )
    return httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=TIMEOUT_S,
        headers={"User-Agent": "litellm-collections", "Accept-Encoding": "gzip"},
    )


async def fetch(url: str, *, max_bytes: int, allowed: Callable[[IPAddress], bool] = is_public) -> Fetched:
    """The document behind a public address.

    Args:
        url: http or https, without user and password.
        max_bytes: Of the content after decompression.
        allowed: Which addresses may be connected to.

    Raises:
        FetchRefused: The address, or one that it redirects to, is not public.
        FetchFailed: It did not answer with a document.
        DocumentTooLarge: It has more than ``max_bytes``.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise FetchRefused("This is not a valid http or https address.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise FetchRefused()
    try:
        async with (
            asyncio.timeout(TOTAL_S),
            _client(allowed) as client,
            client.stream("GET", parsed) as response,
        ):
            if response.status_code != 200:
                raise FetchFailed(
                    f"The address answered with status {response.status_code}. "
                    "Open it in a browser, or upload the file itself."
                )
            content = await _content(response, max_bytes)
            return Fetched(content=content, filename=_filename(response), media_type=_media_type(response))
    except _FAILURES as error:
        raise FetchFailed() from error


async def _content(response: httpx.Response, max_bytes: int) -> bytes:
    """The body, decompressed here: httpx would first decompress each part of it whole, and several times
    where the answer says so, which makes gigabytes of a few kilobytes."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise FetchFailed(
            "The address answered in a compression that was not asked for. Upload the file itself."
        )
    unpacker = None if encoding == "identity" else zlib.decompressobj(wbits=31)
    content = bytearray()
    async for part in response.aiter_raw():
        content += unpacker.decompress(part, max_bytes + 1 - len(content)) if unpacker else part
        if len(content) > max_bytes:
            raise DocumentTooLarge()
    return bytes(content)


def _media_type(response: httpx.Response) -> str | None:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower() or None


def _filename(response: httpx.Response) -> str:
    header = Message()
    header["content-disposition"] = response.headers.get("content-disposition", "")
    name = header.get_filename() or unquote(PurePosixPath(response.url.path).name)
    cleaned = "".join(c for c in PurePosixPath(name).name if c.isprintable())[:200]
    if "." not in cleaned:
        cleaned = f"{cleaned or response.url.host}.html"
    return cleaned
