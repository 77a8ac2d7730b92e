"""An app that stops as our proxy does: `python -m tests.support.draining_app PORT DRAIN_S GRACE_S FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from litellm.proxy.health_endpoints._health_endpoints import health_readiness

from plugins.core.config import ShutdownConfig
from plugins.proxy.drain import drain_on_sigterm

POLL_S = 0.02


def application(settings: ShutdownConfig, folder: Path) -> FastAPI:
    stopping = asyncio.Event()
    ended: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async def finish() -> None:
            (folder / "finished").write_text(" ".join(ended), encoding="utf-8")

        drain_on_sigterm(lambda: settings, stopping, (folder / "closed").touch, finish)
        yield

    app = FastAPI(lifespan=lifespan)
    app.get("/health/readiness")(health_readiness)

    @app.get("/stopping")
    async def says() -> bool:
        return stopping.is_set()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "begun "
            try:
                while not (folder / "go").exists():  # noqa: ASYNC110 - another process makes it
                    await asyncio.sleep(POLL_S)
                yield "done"
            finally:
                ended.append("stream")

        return StreamingResponse(parts())

    return app


if __name__ == "__main__":
    port, drain_s, grace_s, path = sys.argv[1:]
    settings = ShutdownConfig(drain_s=float(drain_s), grace_s=float(grace_s))
    uvicorn.run(application(settings, Path(path)), port=int(port), log_level="warning")
