"""A headless Chromium, driven by its DevTools protocol, that reaches loopback only.

Source: https://chromedevtools.github.io/devtools-protocol/ (Page, Runtime).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.proxy import end

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = [
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]
WAIT_S = 60.0


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def open(self, address: str) -> None:
        await self._ask("Page.navigate", url=address)

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; None while it cannot be told."""
        answer = await self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer.get("result", {}).get("value")

    async def until(self, script: str) -> Any:
        """The expression's value as soon as it is true."""
        value = None
        for _ in range(int(WAIT_S / 0.1)):
            if value := await self.evaluate(script):
                return value
            await asyncio.sleep(0.1)
        raise AssertionError(
            f"`{script}` did not come true on {await self.evaluate('document.body.innerText')}"
        )

    async def sign_in(self, username: str, password: str) -> None:
        """Fill in Keycloak's form, once it is there."""
        await self.until("document.readyState == 'complete' && !!document.querySelector('#kc-login')")
        for field, value in (("username", username), ("password", password)):
            await self.evaluate(f"document.querySelector('#{field}').value = {json.dumps(value)}")
        await self.evaluate("document.querySelector('#kc-login').click()")

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        async with asyncio.timeout(WAIT_S):
            await self._socket.send_json({"id": number, "method": method, "params": parameters})
            while True:
                answer = await self._socket.receive_json()
                if answer.get("id") == number:
                    found: dict[str, Any] = answer.get("result", {})
                    return found


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """A new browser with nothing stored, and one page in it; ended in any case."""
    process = _started(folder)
    try:
        port = await _port(process, folder)
        async with aiohttp.ClientSession(trust_env=False) as session:
            async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                address = (await answer.json())["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        end(process)


def _started(folder: Path) -> subprocess.Popen[bytes]:
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        pytest.skip("Chromium is missing (Debian: apt install chromium)")
    return subprocess.Popen(
        [binary, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


async def _port(process: subprocess.Popen[bytes], folder: Path) -> int:
    """Where it takes commands; it writes that to a file of its own."""
    for _ in range(int(WAIT_S / 0.1)):
        assert process.poll() is None, f"Chromium ended with status {process.returncode}"
        if (found := _first_line(folder / "DevToolsActivePort")) is not None:
            return int(found)
        await asyncio.sleep(0.1)
    raise AssertionError("Chromium was not ready in time")


def _first_line(file: Path) -> str | None:
    return next(iter(file.read_text(encoding="utf-8").splitlines()), None) if file.exists() else None
