"""Fetching by address: only the public internet, within a size, also through redirects."""

from __future__ import annotations

import gzip
import ipaddress
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from crawler.errors import DocumentTooLarge, FetchFailed, FetchRefused
from crawler.fetch import IPAddress, fetch, is_public

MAX_BYTES = 100_000
BOMB = gzip.compress(bytes(50_000_000))
BOMB_IN_BOMB = gzip.compress(BOMB)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/to-private":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest")
            self.end_headers()
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
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

    def answer(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join(5)


def loopback_too(address: IPAddress) -> bool:
    """What the tests allow: their own server, beside the public internet."""
    return address.is_loopback or is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[fec0::1]/",
        "http://0/",
        "http://10.0.0.1/",
        "http://100.64.0.1/",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "http://user:password@example.com/",
        "gopher://x",
        "not an address",
    ],
)
async def test_an_address_that_is_not_public_is_refused(url: str) -> None:
    with pytest.raises(FetchRefused):
        await fetch(url, max_bytes=MAX_BYTES)


async def test_a_redirect_to_a_private_address_is_refused(server: str) -> None:
    with pytest.raises(FetchRefused):
        await fetch(f"{server}/to-private", max_bytes=MAX_BYTES, allowed=loopback_too)


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


async def test_a_page_that_cannot_be_unpacked_fails(server: str) -> None:
    with pytest.raises(FetchFailed):
        await fetch(f"{server}/broken-gzip", max_bytes=MAX_BYTES, allowed=loopback_too)


async def test_an_error_status_says_so(server: str) -> None:
    with pytest.raises(FetchFailed, match="404"):
        await fetch(f"{server}/missing", max_bytes=MAX_BYTES, allowed=loopback_too)


async def test_a_page_arrives_with_its_type_and_a_name(server: str) -> None:
    page = await fetch(f"{server}/guide", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert (page.content, page.filename, page.media_type) == (b"<h1>Hello</h1>", "guide.html", "text/html")


async def test_a_name_in_a_header_cannot_leave_its_folder(server: str) -> None:
    page = await fetch(f"{server}/named", max_bytes=MAX_BYTES, allowed=loopback_too)
    assert page.filename == "report.pdf"


def test_public_addresses_are_public() -> None:
    assert is_public(ipaddress.ip_address("93.184.215.14"))
    assert is_public(ipaddress.ip_address("2606:2800:21f:cb07::1"))
