"""Fetching by address: only the public internet, within a size, also through redirects."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from crawler import fetch as fetching
from crawler.errors import DocumentTooLarge, FetchFailed, FetchRefused, UnsupportedFormat
from crawler.fetch import IPAddress, fetch, is_public
from tests.support.private_addresses import PRIVATE

MAX_BYTES = 100_000
BOMB = gzip.compress(bytes(50_000_000))
BOMB_IN_BOMB = gzip.compress(BOMB)


REDIRECTS = {
    "/to-private": "http://169.254.169.254/latest",
    "/to-file": "file:///etc/passwd",
    "/to-password": "http://user:password@example.com/",
    "/to-spelled": "http://0x7f000002/",
    "/to-nothing": "http://[broken",
    "/to-forbidden": "/private/page",
    "/to-page": "/guide",
    "/loop": "/loop",
}
ROBOTS = """
User-agent: *
Disallow: /

User-agent: other
User-agent: LiteLLM-Collections/2.0  # ours
Disallow: /private/
Allow: /private/open
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path in REDIRECTS:
            self.send_response(302)
            self.send_header("Location", REDIRECTS[self.path])
            self.end_headers()
        elif self.path == "/robots.txt":
            self.answer_robots(self.server.robots)  # type: ignore[attr-defined]
        elif self.path == "/film":
            self.answer(b"film", {"Content-Type": "video/mp4"})
        elif self.path == "/half-gzip":
            self.answer(gzip.compress(b"<h1>Hello</h1>")[:-9], {"Content-Encoding": "gzip"})
        elif self.path == "/bomb":
            self.answer(BOMB, {"Content-Encoding": "gzip"})
        elif self.path == "/bomb-in-bomb":
            self.answer(BOMB_IN_BOMB, {"Content-Encoding": "gzip, gzip"})
        elif self.path == "/gzip":
            self.answer(gzip.compress(b"<h1>Hello</h1>"), {"Content-Encoding": "gzip"})
        elif self.path == "/broken-gzip":
            self.answer(b"no gzip", {"Content-Encoding": "gzip"})
        elif self.path == "/named":
            self.answer(b"x", {"Content-Disposition": 'attachment; filename="../../etc/report.pdf"'})
        elif self.path == "/missing":
            self.send_error(404)
        else:
            self.answer(b"<h1>Hello</h1>", {"Content-Type": "text/html; charset=utf-8"})

    def answer_robots(self, robots: bytes | int) -> None:
        if isinstance(robots, int):
            self.send_error(robots)
        else:
            self.answer(robots, {"Content-Type": "text/plain"})

    def answer(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True
    robots: bytes | int = 404
    """Its robots.txt, or the status in its place."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def site() -> Iterator[Server]:
    with Server() as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join(5)


@pytest.fixture
def server(site: Server) -> str:
    return site.url


def loopback_too(address: IPAddress) -> bool:
    """What the tests allow: their own server, beside the public internet."""
    return address.is_loopback or is_public(address)


@pytest.mark.parametrize("url", PRIVATE)
async def test_an_address_that_is_not_public_is_refused(url: str) -> None:
    with pytest.raises(FetchRefused):
        await fetch(url, max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1./",
        "http://localhost./",
        "http://[fe80::1%25lo]/",
        "http://127.0.0.1%00.example.com/",
    ],
)
async def test_an_address_that_some_resolvers_know_is_refused_or_unknown(url: str) -> None:
    with pytest.raises(FetchFailed, match="pload the file"):
        await fetch(url, max_bytes=MAX_BYTES)


Answers = dict[str, list[list[str]]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What the DNS says to each question about a name, one answer after the other."""
    answers: Answers = {}

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers[host].pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


@pytest.mark.parametrize(
    "answer",
    [["10.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["10.0.0.1", "93.184.215.14"], ["::ffff:10.0.0.1"], []],
)
async def test_a_name_is_refused_when_one_of_its_addresses_is_not_public(
    names: Answers, answer: list[str]
) -> None:
    names["docs.example"] = [answer]
    with pytest.raises(FetchRefused):
        await fetch("http://docs.example/", max_bytes=MAX_BYTES)


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    names: Answers, site: Server
) -> None:
    """A name whose next answer is private. There are two connections: for robots.txt, and for the page."""
    names["docs.example"] = [["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"]]
    url = f"http://docs.example:{site.server_port}/guide"
    page = await fetch(url, max_bytes=MAX_BYTES, allowed=loopback_too)
    assert page.content == b"<h1>Hello</h1>"
    assert names["docs.example"] == [["10.0.0.1"]], "asked once for each connection"


async def test_a_name_that_turns_private_before_the_next_connection_is_refused(
    names: Answers, site: Server
) -> None:
    names["first.example"] = [["127.0.0.1"], ["127.0.0.1"]]
    names["second.example"] = [["10.0.0.1"]]
    REDIRECTS["/to-second"] = f"http://second.example:{site.server_port}/guide"
    with pytest.raises(FetchRefused):
        await fetch(
            f"http://first.example:{site.server_port}/to-second", max_bytes=MAX_BYTES, allowed=loopback_too
        )
    assert "/guide" not in site.asked


async def test_an_address_that_does_not_answer_is_followed_by_the_names_next(
    names: Answers, site: Server
) -> None:
    names["docs.example"] = [["127.0.0.2", "127.0.0.1"]] * 2
    url = f"http://docs.example:{site.server_port}/guide"
    assert (await fetch(url, max_bytes=MAX_BYTES, allowed=loopback_too)).content == b"<h1>Hello</h1>"


@pytest.mark.parametrize("path", ["to-private", "to-file", "to-password"])
async def test_a_redirect_to_what_is_not_public_is_refused(server: str, path: str) -> None:
    with pytest.raises(FetchRefused):
        await fetch(f"{server}/{path}", max_bytes=MAX_BYTES, allowed=loopback_too)


async def test_a_redirect_to_what_is_no_address_fails(server: str) -> None:
    with pytest.raises(FetchFailed):
        await fetch(f"{server}/to-nothing", max_bytes=MAX_BYTES, allowed=loopback_too)


async def test_a_redirect_in_another_spelling_is_refused(server: str) -> None:
    def one_address(address: IPAddress) -> bool:
        return str(address) == "127.0.0.1"

    url = server.replace("127.0.0.1", "127.1")
    page = await fetch(f"{url}/to-page", max_bytes=MAX_BYTES, allowed=one_address)
    assert page.content == b"<h1>Hello</h1>"
    with pytest.raises(FetchRefused):
        await fetch(f"{url}/to-spelled", max_bytes=MAX_BYTES, allowed=one_address)


async def test_a_redirect_is_followed_to_the_page(server: str) -> None:
    page = await fetch(f"{server}/to-page", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert (page.content, page.filename) == (b"<h1>Hello</h1>", "guide.html")


async def test_an_encrypted_address_never_leads_to_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/robots.txt":
            return httpx.Response(404)
        return httpx.Response(302, headers={"Location": "http://docs.example/"})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    monkeypatch.setattr(fetching, "_client", lambda _: client)
    with pytest.raises(FetchRefused, match="without encryption"):
        await fetch("https://docs.example/", max_bytes=MAX_BYTES)


async def test_what_robots_txt_forbids_is_not_fetched(site: Server) -> None:
    site.robots = ROBOTS.encode()
    with pytest.raises(FetchRefused, match=r"robots\.txt"):
        await fetch(f"{site.url}/private/page", max_bytes=MAX_BYTES, allowed=loopback_too)
    with pytest.raises(FetchRefused, match=r"robots\.txt"):
        await fetch(f"{site.url}/to-forbidden", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert "/private/page" not in site.asked


async def test_what_robots_txt_allows_is_fetched_and_it_is_asked_once(site: Server) -> None:
    site.robots = ROBOTS.encode()
    for path in ("guide", "private/open"):
        await fetch(f"{site.url}/{path}", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert site.asked == ["/robots.txt", "/guide", "/private/open"]


@pytest.mark.parametrize("robots", [404, 403, b"\xff\xfe no rules", b"Disallow: /", b"x" * 2_000_000])
async def test_a_site_without_rules_may_be_fetched(site: Server, robots: bytes | int) -> None:
    site.robots = robots
    await fetch(f"{site.url}/guide", max_bytes=MAX_BYTES, allowed=loopback_too)


async def test_a_site_whose_rules_cannot_be_read_is_left_alone(site: Server) -> None:
    site.robots = 503
    with pytest.raises(FetchFailed, match="Try again later"):
        await fetch(f"{site.url}/guide", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert "/guide" not in site.asked


async def test_what_is_no_document_is_not_downloaded(server: str) -> None:
    with pytest.raises(UnsupportedFormat, match="no document"):
        await fetch(f"{server}/film", max_bytes=MAX_BYTES, allowed=loopback_too)


async def test_a_redirect_without_end_fails(server: str) -> None:
    with pytest.raises(FetchFailed):
        await fetch(f"{server}/loop", max_bytes=MAX_BYTES, allowed=loopback_too)


async def test_the_size_is_counted_after_decompression(server: str) -> None:
    with pytest.raises(DocumentTooLarge):
        await fetch(f"{server}/bomb", max_bytes=MAX_BYTES, allowed=loopback_too)


@pytest.mark.parametrize("path", ["bomb", "bomb-in-bomb"])
async def test_a_small_answer_never_becomes_much_memory(server: str, path: str) -> None:
    await fetch(f"{server}/guide", max_bytes=MAX_BYTES, allowed=loopback_too)  # what is loaded once
    tracemalloc.start()
    try:
        with pytest.raises((DocumentTooLarge, FetchFailed)):
            await fetch(f"{server}/{path}", max_bytes=MAX_BYTES, allowed=loopback_too)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


async def test_a_compressed_page_is_unpacked(server: str) -> None:
    page = await fetch(f"{server}/gzip", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert page.content == b"<h1>Hello</h1>"


@pytest.mark.parametrize("path", ["broken-gzip", "half-gzip"])
async def test_a_page_that_cannot_be_unpacked_fails(server: str, path: str) -> None:
    with pytest.raises(FetchFailed):
        await fetch(f"{server}/{path}", max_bytes=MAX_BYTES, allowed=loopback_too)


async def test_an_error_status_says_so(server: str) -> None:
    with pytest.raises(FetchFailed, match="404"):
        await fetch(f"{server}/missing", max_bytes=MAX_BYTES, allowed=loopback_too)


async def test_a_page_arrives_with_its_type_and_a_name(server: str) -> None:
    page = await fetch(f"{server}/guide", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert (page.content, page.filename, page.media_type) == (b"<h1>Hello</h1>", "guide.html", "text/html")


async def test_a_name_in_a_header_cannot_leave_its_folder(server: str) -> None:
    page = await fetch(f"{server}/named", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert page.filename == "report.pdf"


async def test_a_name_that_is_too_long_keeps_its_end(server: str) -> None:
    page = await fetch(f"{server}/{'x' * 300}.csv", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert page.filename == "x" * 196 + ".csv"


def test_public_addresses_are_public() -> None:
    assert is_public(ipaddress.ip_address("93.184.215.14"))
    assert is_public(ipaddress.ip_address("2606:2800:21f:cb07::1"))
