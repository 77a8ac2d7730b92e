"""Fetching a document from an address that somebody gave us, without reaching into our own network.

Every host name is resolved by us, every address that it has must be public, and the connection goes to
the very address that was checked, so that a second answer of the DNS changes nothing. The same holds for
each redirect and for the site's robots.txt, which is obeyed. No proxy and no credentials of the environment
are used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from email.message import Message
from pathlib import PurePosixPath
from urllib.parse import unquote

import httpcore
import httpx

from crawler import robots
from crawler.contracts import Frozen
from crawler.errors import DocumentTooLarge, FetchFailed, FetchRefused, UnsupportedFormat
from crawler.filenames import clean_name

AGENT = "litellm-collections"
"""Our name to sites, and in their robots.txt."""
MAX_REDIRECTS = 5
MAX_ADDRESSES = 4
"""Of one host that are tried, one after the other."""
TIMEOUT_S = 20.0  # of one step
TOTAL_S = 300.0
_FAILURES = (httpx.HTTPError, httpcore.NetworkError, httpcore.TimeoutException, TimeoutError, zlib.error)
ROBOTS_S = 3600.0
"""How long a site's robots.txt is remembered."""
ROBOTS_SITES = 1000
"""Of so many sites."""
MEDIA_TYPES = (
    *("text/", "image/", "message/rfc822", "application/pdf", "application/epub+zip", "application/rtf"),
    *("application/json", "application/ld+json", "application/jsonl", "application/x-ndjson"),
    *("application/xml", "application/xhtml+xml", "application/atom+xml", "application/rss+xml"),
    *("application/msword", "application/vnd.ms-", "application/vnd.openxmlformats-officedocument."),
    *("application/vnd.oasis.opendocument.", "application/x-ipynb+json", "application/zip"),
    *("application/x-zip", "application/javascript", "application/yaml", "application/toml"),
    *(
        "application/octet-stream",
        "binary/octet-stream",
        "application/x-download",
        "application/force-download",
    ),
)
"""Beginnings of the types that documents have; films, sounds, programs and fonts are not downloaded at all.
The last line is what servers say that do not know."""
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
        failure: Exception = httpcore.ConnectError("no address")
        for address in dict.fromkeys(addresses[:MAX_ADDRESSES]):
            try:
                return await self._backend.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

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
        follow_redirects=False,
        timeout=TIMEOUT_S,
        headers={"User-Agent": AGENT, "Accept-Encoding": "gzip"},
    )


async def fetch(url: str, *, max_bytes: int, allowed: Callable[[IPAddress], bool] = is_public) -> Fetched:
    """The document behind a public address.

    Args:
        url: http or https, without user and password.
        max_bytes: Of the content after decompression.
        allowed: Which addresses may be connected to.

    Raises:
        FetchRefused: The address, or one that it redirects to, is not public, or its site's robots.txt does
            not allow it.
        FetchFailed: It did not answer with a document.
        UnsupportedFormat: It answered with something that is no document.
        DocumentTooLarge: It has more than ``max_bytes``.
    """
    try:
        async with asyncio.timeout(TOTAL_S), _client(allowed) as client:
            visitor = _Visitor(client)
            async with visitor.get(_address(url), obeying=True) as response:
                if response.status_code != 200:
                    raise FetchFailed(
                        f"The address answered with status {response.status_code}. "
                        "Open it in a browser, or upload the file itself."
                    )
                media_type = _media_type(response)
                content = await _content(response, max_bytes)
                if len(content) > max_bytes:
                    raise DocumentTooLarge()
                return Fetched(content=content, filename=_filename(response), media_type=media_type)
    except _FAILURES as error:
        raise FetchFailed() from error


def _address(url: str | httpx.URL) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise FetchRefused("This is not a valid http or https address.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise FetchRefused()
    return parsed


class _Visitor:
    """Follows redirects, each of which is checked as the first address was."""

    _known: OrderedDict[tuple[str, bytes], tuple[float, robots.Robots]] = OrderedDict()

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @asynccontextmanager
    async def get(self, url: httpx.URL, *, obeying: bool) -> AsyncIterator[httpx.Response]:
        """The first answer that is no redirect.

        Args:
            url: Where to begin.
            obeying: Whether sites' robots.txt are asked; not for these themselves.
        """
        for _ in range(MAX_REDIRECTS + 1):
            if obeying:
                await self._obey(url)
            async with self._client.stream("GET", url) as response:
                if response.next_request is None:
                    yield response
                    return
                following = _address(response.next_request.url)
            if url.scheme == "https" and following.scheme != "https":
                raise FetchRefused(
                    "The address leads to one without encryption. Open it in a browser, and upload the file."
                )
            url = following
        raise FetchFailed("The address redirects too often. Open it in a browser, or upload the file itself.")

    async def _obey(self, url: httpx.URL) -> None:
        rules = await self._rules(url)
        if not rules.allows(url.raw_path.decode("ascii")):
            raise FetchRefused(
                "The site's robots.txt does not let programs fetch this page. "
                "Open it in a browser, save it and upload the file."
            )

    async def _rules(self, url: httpx.URL) -> robots.Robots:
        site = (url.scheme, url.netloc)
        until, rules = self._known.get(site, (0.0, robots.Robots("", AGENT)))
        if until > time.monotonic():
            return rules
        async with self.get(url.join("/robots.txt"), obeying=False) as response:
            if response.status_code >= 500:  # then nothing may be fetched (RFC 9309, 2.3.1.4)
                raise FetchFailed("The site's robots.txt cannot be read at the moment. Try again later.")
            content = b"" if response.status_code != 200 else await _content(response, robots.MAX_BYTES)
        text = content[: robots.MAX_BYTES].decode("utf-8", errors="replace")
        rules = await asyncio.to_thread(robots.Robots, text, AGENT)
        self._known[site] = (time.monotonic() + ROBOTS_S, rules)
        while len(self._known) > ROBOTS_SITES:
            self._known.popitem(last=False)
        return rules


async def _content(response: httpx.Response, max_bytes: int) -> bytes:
    """The body, at most one byte more than ``max_bytes`` of it.

    It is decompressed here: httpx would first decompress each part of it whole, and several times where the
    answer says so, which makes gigabytes of a few kilobytes."""
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
            return bytes(content[: max_bytes + 1])
    if unpacker and not unpacker.eof:
        raise FetchFailed()
    return bytes(content)


def _media_type(response: httpx.Response) -> str | None:
    """
    Raises:
        UnsupportedFormat: It is of a kind that no document is.
    """
    found = response.headers.get("content-type", "").partition(";")[0].strip().lower() or None
    if found and not found.startswith(MEDIA_TYPES):
        raise UnsupportedFormat("The address answers with a type of file that is no document.")
    return found


def _filename(response: httpx.Response) -> str:
    header = Message()
    header["content-disposition"] = response.headers.get("content-disposition", "")
    name = header.get_filename() or unquote(PurePosixPath(response.url.path).name)
    cleaned = clean_name(name, "")
    if "." not in cleaned:
        cleaned = f"{cleaned or response.url.host}.html"
    return cleaned
