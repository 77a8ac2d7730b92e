"""A stand-in for Ollama on loopback: its management API as a real one answered, and what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

DIGEST = "sha256:" + "d4" * 32
SUCCESS: tuple[Any, ...] = (
    {"status": "pulling manifest"},
    {"status": "pulling d4", "digest": DIGEST, "total": 637280},
    *({"status": "pulling d4", "digest": DIGEST, "total": 637280, "completed": 327680} for _ in range(20)),
    {"status": "pulling d4", "digest": DIGEST, "total": 637280, "completed": 637280},
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
)
TINY = {"name": "tiny:latest", "model": "tiny:latest", "size": 637280, "digest": "d4" * 32, "details": {}}


@dataclass
class FakeOllama:
    url: str = ""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path and body."""
    progress: tuple[Any, ...] = SUCCESS
    """Of a pull: objects, texts that are sent as they are, or events to wait for."""
    answer: web.Response | None = None
    """Instead of any other."""
    slow: asyncio.Event | None = None
    """What every answer waits for."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Who pulled went away."""

    @property
    def pulls(self) -> list[Any]:
        return [body for _, path, body in self.asked if path == "/api/pull"]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body: Any = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path, body))
        if self.slow:
            await self.slow.wait()
        if self.answer:
            return self.answer
        known = body is None or body["model"] in ("tiny", "tiny:latest", "hf.co/bartowski/Tiny-GGUF:Q4_K_M")
        answers: dict[str, Any] = {
            "/api/tags": {"models": [TINY]},
            "/api/ps": {"models": [{**TINY, "expires_at": "2026-01-01T00:00:00Z", "size_vram": 0}]},
            "/api/show": {"capabilities": ["completion", "tools"], "details": {"format": "gguf"}},
        }
        if request.path == "/api/pull":
            return await self.pull(request)
        if not known:
            return web.json_response({"error": f"model '{body['model']}' not found"}, status=404)
        if request.path == "/api/delete":
            return web.Response()
        return web.json_response(answers[request.path])

    async def pull(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            for part in self.progress:
                if isinstance(part, asyncio.Event):
                    await part.wait()
                else:
                    await response.write(
                        (part if isinstance(part, str) else json.dumps(part)).encode() + b"\n"
                    )
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response


@asynccontextmanager
async def fake_ollama() -> AsyncIterator[FakeOllama]:
    fake = FakeOllama()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()
