"""all-MiniLM-L6-v2 in this process, against the same arithmetic in numpy."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from crawler.embedders import _minilm
from crawler.embedders.minilm import MiniLM, MiniLMSettings
from crawler.errors import ConfigError, EmbeddingFailed

Array = NDArray[np.float64]

TEXTS = [
    "How many days of annual leave are there?",
    "Members of staff have thirty days of holiday in a year.",
    "The revenue of the northern region was twelve million.",
    "Grüße, 漢字 and emoji 🎉 too",
    "",
    "long " * 200,
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(cache: Path) -> MiniLM:
    return MiniLM(MiniLMSettings(cache=cache))


def erf(x: Array) -> Array:
    """Abramowitz and Stegun 7.1.26, to 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.asarray(np.sign(x) * (1 - series * np.exp(-x * x)))


def reference(ids: list[int], weights: dict[str, Any]) -> Array:
    """BERT as published (arXiv:1810.04805), one text, in double precision."""

    def linear(x: Array, name: str) -> Array:
        return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def heads(x: Array) -> Array:
        return x.reshape(len(ids), 12, 32).transpose(1, 0, 2)

    words = weights["embeddings.word_embeddings.weight"][ids].astype(np.float64)
    places = weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(words + places + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        q, k, v = (heads(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(32))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), 384)
        x = norm(linear(mixed, f"{layer}.attention.output.dense") + x, f"{layer}.attention.output.LayerNorm")
        inner = linear(x, f"{layer}.intermediate.dense")
        gelu = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(linear(gelu, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
    mean = x.mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


def test_the_vectors_are_those_of_the_published_model(model: MiniLM) -> None:
    weights = load_file(_minilm.find("model.safetensors"))
    tokenizer = _minilm.tokenizer()
    for text, vector in zip(TEXTS, model.embed_batch(TEXTS), strict=True):
        expected = reference(tokenizer.encode(text).ids, weights)
        assert float(np.dot(expected, vector)) == pytest.approx(1.0, abs=1e-5)


def test_vectors_have_384_dimensions_and_length_one(model: MiniLM) -> None:
    vectors = np.array(model.embed_batch(TEXTS))
    assert vectors.shape == (len(TEXTS), MiniLM.dimension)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_a_question_is_nearer_to_its_answer_than_to_something_else(model: MiniLM) -> None:
    question, answer, other = np.array(model.embed_batch(TEXTS[:3]))
    assert question @ answer > 0.5 > question @ other


def test_a_text_has_the_same_vector_alone_and_in_a_batch_of_longer_ones(model: MiniLM) -> None:
    together = model.embed_batch(TEXTS)
    alone = [model.embed_batch([text])[0] for text in TEXTS]
    assert np.array(together) == pytest.approx(np.array(alone), abs=1e-5)


async def test_many_texts_come_back_in_their_order(cache: Path) -> None:
    small = MiniLM(MiniLMSettings(cache=cache, batch_size=2))
    texts = [f"{'word ' * (n % 7)}number {n}" for n in range(9)]
    vectors = await small.embed(texts)
    assert np.array(vectors) == pytest.approx(np.array(small.embed_batch(texts)), abs=1e-5)
    assert await small.embed([]) == []
    small.close()


async def test_concurrent_callers_get_their_own_answers(model: MiniLM) -> None:
    answers = await asyncio.gather(*(model.embed([text]) for text in TEXTS))
    assert np.array([a[0] for a in answers]) == pytest.approx(np.array(model.embed_batch(TEXTS)), abs=1e-5)


async def test_a_text_over_the_limit_is_refused_by_its_index_and_length(cache: Path) -> None:
    small = MiniLM(MiniLMSettings(cache=cache, batch_size=1))
    with pytest.raises(
        EmbeddingFailed, match="index 1 has 302 tokens; the model reads at most 256"
    ) as refused:
        await small.embed(["short", "word " * 300])
    assert not refused.value.transient


async def test_a_text_over_the_limit_is_cut_when_asked(model: MiniLM) -> None:
    longer, exact = await model.embed(["word " * 300, "word " * 254], truncate=True)
    assert longer == pytest.approx(exact, abs=1e-5)


def test_tokens_are_counted_with_the_special_ones(model: MiniLM) -> None:
    assert model.count_tokens(["", "one", "one two " * 200]) == [2, 3, 402]


def test_the_graph_is_cached_and_a_damaged_one_is_made_anew(cache: Path, model: MiniLM) -> None:
    before = model.embed_batch(["text"])
    (graph,) = cache.glob("*.onnx")
    with graph.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    assert MiniLM(MiniLMSettings(cache=cache)).embed_batch(["text"]) == before


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert MiniLM(MiniLMSettings(cache=tmp_path / "file" / "x")).embed_batch(["text"])


def test_files_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    shutil.copy(_minilm.find("tokenizer.json"), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="sha256 differs"):
        MiniLM(MiniLMSettings(path=tmp_path, cache=tmp_path / "cache")).embed_batch(["text"])


def test_files_that_are_missing_are_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="check the model's path"):
        MiniLM(MiniLMSettings(path=tmp_path)).count_tokens(["text"])


def test_a_text_beyond_all_limits_is_refused_before_it_is_read(
    model: MiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(_minilm, "tokenizer", read)
    with pytest.raises(EmbeddingFailed, match="index 1 has 200000 characters"):
        model.embed_batch(["short", "a " * 100_000])
