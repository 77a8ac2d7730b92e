"""`local/minilm` through LiteLLM."""

from __future__ import annotations

import base64
import struct
from typing import Any

import litellm
import pytest

from plugins.models import register


@pytest.fixture(autouse=True)
def _registered() -> None:
    register()


async def embed(texts: Any, **params: Any) -> Any:
    return await litellm.aembedding(model="local/minilm", input=texts, **params)


async def test_vectors_have_384_dimensions_and_their_order_and_tokens_are_counted() -> None:
    response = await embed(["The notice period", "Quarterly revenue"])
    assert [(item["index"], len(item["embedding"])) for item in response.data] == [(0, 384), (1, 384)]
    assert response.usage.prompt_tokens == response.usage.total_tokens == 3 + 2 + 2 + 2
    [single] = (await embed("The notice period")).data
    assert single["embedding"] == pytest.approx(response.data[0]["embedding"], abs=1e-5)


async def test_base64_is_the_same_vector() -> None:
    request = {"body": {"encoding_format": "base64"}}
    params = {"encoding_format": "base64", "additional_drop_params": ["encoding_format"]}
    encoded = (await embed("notice", proxy_server_request=request, **params)).data[0]["embedding"]
    floats = (await embed("notice")).data[0]["embedding"]
    assert list(struct.unpack("<384f", base64.b64decode(encoded))) == pytest.approx(floats, abs=1e-6)


@pytest.mark.parametrize(
    ("texts", "params", "words"),
    [
        ("word " * 400, {}, "402 tokens.* 256"),
        ([""], {}, "none of them empty"),
        ([], {}, "none of them empty"),
        ([[1, 2, 3]], {}, "list of texts"),
        (["a"] * 2049, {}, "2049 texts; at most 2048"),
        ("a", {"dimensions": 100}, "dimensions"),
    ],
)
async def test_what_it_cannot_do_is_a_400_that_says_why(
    texts: Any, params: dict[str, Any], words: str
) -> None:
    with pytest.raises(litellm.BadRequestError, match=words) as refused:  # type: ignore[attr-defined]
        await embed(texts, **params)
    assert refused.value.status_code == 400


def test_it_answers_without_an_event_loop_too() -> None:
    response: Any = litellm.embedding(model="local/minilm", input=["notice"])
    assert len(response.data[0]["embedding"]) == 384
