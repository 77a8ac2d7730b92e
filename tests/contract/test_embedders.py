"""What every embedder promises, over every embedder there is."""

from __future__ import annotations

import json
import math
import struct
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from crawler.contracts import Embedder
from crawler.embedders.minilm import MiniLM
from crawler.embedders.openai import OpenAIEmbedder, OpenAISettings
from crawler.errors import EmbeddingFailed
from crawler.registry import available

TEXTS = ["annual leave", "notice period", "a" * 3, "annual leave"]
TOO_LONG = "leave " * 5000


class Endpoint(BaseHTTPRequestHandler):
    """A stand-in for `/v1/embeddings`: vectors from the texts' letters, and a limit of their length."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts: list[str] = body["input"]
        if max(map(len, texts)) > 1000:
            self.answer(400, {"error": {"message": "too long", "type": "invalid_request_error"}})
            return
        data = [
            {"object": "embedding", "index": index, "embedding": self.vector(text, body)}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        self.answer(200, {"object": "list", "model": body["model"], "data": data, "usage": usage})

    def vector(self, text: str, body: dict[str, object]) -> object:
        numbers = [1.0 + text.count(letter) for letter in "aelnoipc"]
        size = math.hypot(*numbers)
        unit = [number / size for number in numbers]
        if body.get("encoding_format") == "base64":
            return b64encode(struct.pack(f"<{len(unit)}f", *unit)).decode()
        return unit

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(params=["minilm", "openai"])
async def embedder(request: pytest.FixtureRequest, endpoint: str) -> AsyncIterator[Embedder]:
    if request.param == "minilm":
        local = MiniLM()
        yield local
        local.close()
        return
    settings = OpenAISettings(base_url=endpoint, api_key=SecretStr("sk-test"), model="m", dimension=8)
    remote = OpenAIEmbedder(settings)
    yield remote
    await remote.close()


def test_every_embedder_is_in_this_suite() -> None:
    assert available("crawler.embedders") == ["minilm", "openai"]


async def test_there_is_one_vector_for_each_text_in_their_order_all_of_one_dimension(
    embedder: Embedder,
) -> None:
    vectors = await embedder.embed(TEXTS)
    assert len(vectors) == len(TEXTS)
    assert len({len(vector) for vector in vectors}) == 1
    assert vectors[0] == pytest.approx(vectors[3], abs=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert (await embedder.embed([text]))[0] == pytest.approx(vector, abs=1e-4)


async def test_vectors_have_length_one(embedder: Embedder) -> None:
    for vector in await embedder.embed(TEXTS):
        assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-4)


async def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert await embedder.embed([]) == []


async def test_a_text_that_is_too_long_is_refused_and_not_cut(embedder: Embedder) -> None:
    with pytest.raises(EmbeddingFailed) as refused:
        await embedder.embed([TOO_LONG])
    assert not refused.value.transient
