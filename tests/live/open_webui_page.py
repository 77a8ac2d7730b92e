"""What a person does and sees on Open WebUI's pages, in a headless Chromium."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.live.keycloak_browser import Page, browser

WIDTH, HEIGHT = 1200, 900
MESSAGES = "(document.querySelector('#messages-container')?.innerText ?? '')"
DIALOG = "document.querySelector('[role=dialog]')"


class Chat:
    """One person's browser.

    Args:
        page: Its one tab.
        url: Open WebUI's address.
        artefacts: Takes the screenshots.
    """

    def __init__(self, page: Page, url: str, artefacts: Path) -> None:
        self.page = page
        self._url = url
        self._artefacts = artefacts

    async def sign_in(self, person: str) -> None:
        """With the button of Open WebUI's own page, at Keycloak, and back."""
        await self.page.open(f"{self._url}/auth")
        await self._click("one.innerText.includes('Keycloak')")
        await self.page.sign_in(person, f"{person}-pw")
        await self.page.until(f"location.origin == '{self._url}' && !!document.querySelector('#chat-input')")

    async def sign_out(self) -> None:
        await self._click("one.ariaLabel == 'User menu'")
        await self._click("one.innerText.trim() == 'Sign Out'")
        await self.page.until("location.pathname == '/auth'")

    async def choose(self, model: str) -> None:
        """A new chat with the model."""
        await self.page.open(f"{self._url}/?models={quote(model)}")
        label = "document.querySelector('#model-selector-model-button')?.ariaLabel"
        await self.page.until(f"{label} == {json.dumps(f'Selected model: {model}')}")

    async def ask(self, question: str) -> None:
        typed = f"document.execCommand('insertText', false, {json.dumps(question)})"
        await self.page.until("!!document.querySelector('#chat-input')")
        await self.page.evaluate(f"document.querySelector('#chat-input').focus(); {typed}")
        await self.page.until("!document.querySelector('#send-message-button')?.disabled")
        await self.page.evaluate("document.querySelector('#send-message-button').click()")

    async def shows(self, text: str) -> None:
        """Wait until the conversation has this text."""
        await self.page.until(f"{MESSAGES}.includes({json.dumps(text)})")

    async def text(self) -> str:
        """The conversation."""
        return str(await self.page.evaluate(MESSAGES))

    async def stop(self) -> None:
        await self._click("one.ariaLabel == 'Stop'")

    async def open_source(self, name: str) -> str:
        """Click the mark in the answer; the text of the window that opens."""
        await self._click(f"one.ariaLabel == {json.dumps(f'View source: {name}')}")
        return str(await self.page.until(f"{DIALOG}?.innerText"))

    async def source_link(self) -> str:
        """Where the open window's title leads to."""
        return str(await self.page.evaluate(f"{DIALOG}.querySelector('a').href"))

    async def origins(self) -> set[str]:
        """Whom this page has asked for anything."""
        names = "performance.getEntriesByType('resource').map(one => new URL(one.name).origin)"
        return set(await self.page.evaluate(names))

    async def stored(self) -> dict[str, Any]:
        """The chat of this page as Open WebUI keeps it, once its tags are made, which come last."""
        address = "'/api/v1/chats/' + location.pathname.split('/').pop()"
        headers = "{headers: {Authorization: 'Bearer ' + localStorage.token}}"
        chat = f"fetch({address}, {headers}).then(answer => answer.json())"
        found: dict[str, Any] = await self.page.until(
            f"{chat}.then(one => one.meta?.tags?.length ? one : null)"
        )
        return found

    async def _click(self, condition: str) -> None:
        """The first button of which the condition on `one` is true, once it is there."""
        button = f"[...document.querySelectorAll('button')].find(one => {condition})"
        await self.page.until(f"!!{button}")
        await self.page.evaluate(f"{button}.click()")

    async def screenshot(self, name: str) -> None:
        """As it looks when nothing moves any more."""
        moving = "document.getAnimations().filter(one => one.effect.getTiming().iterations < 10)"
        await self.page.evaluate(f"Promise.allSettled({moving}.map(one => one.finished)).then(() => true)")
        taken = await self.page._ask("Page.captureScreenshot", format="png")
        (self._artefacts / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))


@asynccontextmanager
async def person(name: str, url: str, folder: Path, artefacts: Path) -> AsyncIterator[Chat]:
    """Somebody of the realm, signed in to Open WebUI in a browser of their own."""
    async with browser(folder) as page:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        await page._ask("Emulation.setDeviceMetricsOverride", **size)
        chat = Chat(page, url, artefacts)
        await chat.sign_in(name)
        yield chat
