"""An embedding endpoint that takes its time, as a model on another machine.

It answers every text with a vector of its first letters, `WAIT_S` after the request, any number at once.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from aiohttp import web

from tests.support.collections import DIMENSION, words
from tests.support.proxy import free_port

WAIT_S = 0.5
"""Of a request of 32 passages: 64 passages a second for one caller."""
READY_S = 30.0


async def embeddings(request: web.Request) -> web.Response:
    texts = (await request.json())["input"]
    await asyncio.sleep(WAIT_S)
    data = [
        {"object": "embedding", "index": index, "embedding": words(text, DIMENSION)}
        for index, text in enumerate(texts)
    ]
    return web.json_response(
        {"object": "list", "model": "bench", "data": data, "usage": {"prompt_tokens": 0}}
    )


@contextmanager
def endpoint() -> Iterator[str]:
    """Its address; it is ended in any case."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.ingest.endpoint", str(port)])
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + READY_S
        while True:
            try:
                httpx.get(url, trust_env=False)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the embedding endpoint did not start"
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/v1/embeddings", embeddings)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
