"""Pictures described by a model of the real proxy. The model is a stand-in that keeps what it was shown."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.fixtures.formats.make_inside import png
from tests.support.library import key, litellm_config, our_config
from tests.support.proxy import MASTER_KEY, free_port, proxy
from tests.support.scripted_upstream import KEY, ScriptedUpstream, scripted_upstream
from tests.unit.crawler.samples import real

WORDS = "A lighthouse on a cliff above the harbour."
ASKED = "What is to be seen?"
PHOTOGRAPH = png((256, 256, b"\x0f\xf0" * 16 * 256))


@dataclass
class Gallery:
    alice: httpx.Client
    path: str
    upstream: ScriptedUpstream

    def add(self, name: str, content: bytes) -> dict[str, Any]:
        answer = self.alice.post(f"{self.path}/add?wait=true", files=[("files", (name, content))])
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"][0])

    def hits(self, query: str) -> list[dict[str, Any]]:
        answer = self.alice.post(f"{self.path}/search", json={"query": query})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    def seen(self) -> list[bytes]:
        """The pictures that the model was shown."""
        urls = [
            part["image_url"]["url"]
            for asked in self.upstream.asked
            for part in asked.messages[-1]["content"]
            if part["type"] == "image_url"
        ]
        return [base64.b64decode(url.removeprefix("data:image/png;base64,")) for url in urls]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    folder, port = tmp_path_factory.mktemp("gallery"), free_port()
    pipeline = {
        "formats": [{"use": "image", "ocr": "off"}, {"use": "pdf", "ocr": "off"}],
        "image_descriptions": {"model": "eyes", "prompt": ASKED, "min_pixels": 100},
    }
    with scripted_upstream({ASKED: [{"text": [WORDS]}]}) as upstream:
        params = {"model": "openai/eyes", "api_base": upstream.url, "api_key": KEY, "num_retries": 0}
        config = litellm_config([{"model_name": "eyes", "litellm_params": params}])
        ours = our_config(folder, port) | {
            "pipelines": {"pipelines": {"default": pipeline}},
            "worker": {
                "worker": {"proxy_url": f"http://127.0.0.1:{port}", "api_key": "os.environ/WORKER_KEY"}
            },
        }
        headers = {"Authorization": f"Bearer {key('alice')}"}
        with (
            proxy(folder, config, ours, {"WORKER_KEY": MASTER_KEY}, port) as running,
            httpx.Client(base_url=running.url, headers=headers, timeout=90, trust_env=False) as alice,
        ):
            made = alice.post("/v1/collections/new", json={"name": "gallery"})
            assert made.status_code == 201, made.text
            yield Gallery(alice, f"/v1/collections/{made.json()['id']}", upstream)


def test_a_photograph_is_found_by_what_a_model_sees_in_it(gallery: Gallery) -> None:
    gallery.upstream.asked.clear()
    document = gallery.add("view.png", PHOTOGRAPH)
    assert document["status"] == "completed", document
    assert gallery.seen() == [PHOTOGRAPH]
    [hit] = gallery.hits("lighthouse")
    assert (hit["filename"], hit["content"][0]["text"]) == ("view.png", f"Image description: {WORDS}")


def test_the_pictures_of_a_document_are_described_where_they_stand(gallery: Gallery) -> None:
    gallery.upstream.asked.clear()
    document = gallery.add("policy.pdf", real("policy.pdf"))
    assert document["status"] == "completed", document
    assert len(gallery.seen()) == 1
    texts = [hit["content"][0]["text"] for hit in gallery.hits("Second class lighthouse on a cliff")]
    assert any(f"Image description: {WORDS}" in text and "Second class" in text for text in texts), texts
