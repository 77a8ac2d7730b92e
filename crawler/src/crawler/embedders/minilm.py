"""all-MiniLM-L6-v2 in this process: embeddings without any server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from crawler.embedders import _minilm
from crawler.errors import EmbeddingFailed
from crawler.settings import Settings

if TYPE_CHECKING:
    from onnxruntime import InferenceSession  # type: ignore[import-untyped]


MAX_CHARS = 100_000
"""A longer text is refused before it is read: that takes seconds, in which all others would wait."""


class MiniLMSettings(Settings):
    path: Path | None = None
    """Folder with ``model.safetensors`` and ``tokenizer.json``; else the installed package, else the hub."""
    cache: Path | None = None
    """Folder for the graph built from the weights (90 MB); else ``$XDG_CACHE_HOME/litellm-collections``."""
    threads: int = Field(default=2, ge=1, le=64)
    """Batches that are computed at once, each by one thread."""
    batch_size: int = Field(default=8, ge=1, le=1024)
    """Texts that go through the model at once. More are no faster on a processor, and need more memory."""


class MiniLM:
    """Embeddings of 384 dimensions, mean pooled and of length 1.

    The model is loaded at the first use: once, in a fraction of a second when its graph is cached.
    """

    dimension = _minilm.DIMENSION
    max_tokens = _minilm.MAX_TOKENS
    """The longest input, its two special tokens included."""

    def __init__(self, settings: MiniLMSettings | None = None) -> None:
        self.settings = settings or MiniLMSettings()
        self._session: InferenceSession | None = None
        self._loading = threading.Lock()
        self._executor = ThreadPoolExecutor(self.settings.threads, thread_name_prefix="minilm")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text as the model counts them, the two special ones included."""
        encodings = _minilm.tokenizer(self.settings.path).encode_batch_fast(list(texts))
        return [len(encoding) for encoding in encodings]

    def embed_batch(self, texts: Sequence[str], *, truncate: bool = False) -> list[list[float]]:
        """One vector for each text, in their order. Blocks; safe to call from several threads.

        Raises:
            EmbeddingFailed: A text is longer than ``max_tokens`` and ``truncate`` is False.
            ConfigError: The model's files are missing, or are not the published ones.
        """
        return self._embed(texts, truncate, 0)

    async def embed(self, texts: Sequence[str], *, truncate: bool = False) -> list[list[float]]:
        """:meth:`embed_batch` off the event loop, in slices between which other callers get their turn."""
        loop = asyncio.get_running_loop()
        size = self.settings.batch_size
        vectors: list[list[float]] = [[]] * len(texts)
        starts = iter(range(0, len(texts), size))

        async def compute() -> None:
            for start in starts:
                part = texts[start : start + size]
                found = await loop.run_in_executor(self._executor, self._embed, part, truncate, start)
                vectors[start : start + size] = found

        computing = [asyncio.ensure_future(compute()) for _ in range(self.settings.threads)]
        try:
            await asyncio.gather(*computing)
        finally:
            for each in computing:
                each.cancel()
        return vectors

    def close(self) -> None:
        """End the threads; running slices are finished first."""
        self._executor.shutdown(cancel_futures=True)

    def _embed(self, texts: Sequence[str], truncate: bool, first: int) -> list[list[float]]:
        """``first`` is the index of the first text in what the caller gave, for the error's words."""
        for index, text in enumerate(texts):
            if len(text) > MAX_CHARS and not truncate:
                raise _too_long(first + index, f"{len(text)} characters", self.max_tokens)
        given = [text[:MAX_CHARS] for text in texts]
        found = _minilm.tokenizer(self.settings.path).encode_batch_fast(given)
        encodings = [encoding.ids for encoding in found]
        for index, ids in enumerate(encodings):
            if len(ids) > self.max_tokens:
                if not truncate:
                    raise _too_long(first + index, f"{len(ids)} tokens", self.max_tokens)
                encodings[index] = [*ids[: self.max_tokens - 1], ids[-1]]
        # Texts of like length together: a batch is as wide as its longest.
        order = sorted(range(len(encodings)), key=lambda index: len(encodings[index]))
        vectors: list[list[float]] = [[]] * len(encodings)
        for start in range(0, len(order), self.settings.batch_size):
            batch = order[start : start + self.settings.batch_size]
            for index, vector in zip(batch, self._run([encodings[i] for i in batch]), strict=True):
                vectors[index] = vector
        return vectors

    def _run(self, encodings: list[list[int]]) -> list[list[float]]:
        import numpy as np

        ids = np.zeros((len(encodings), max(map(len, encodings))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(encodings):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        output: list[Any] = self._loaded().run(["embeddings"], {"input_ids": ids, "attention_mask": mask})
        vectors: list[list[float]] = output[0].tolist()
        return vectors

    def _loaded(self) -> InferenceSession:
        with self._loading:
            if self._session is None:
                from onnxruntime import InferenceSession, SessionOptions

                options = SessionOptions()
                # One thread for each batch: threads that share one wait for the slowest of them at each step,
                # which on a busy machine is most of the time.
                options.intra_op_num_threads = 1
                options.inter_op_num_threads = 1
                content = _minilm.graph(self.settings.path, self.settings.cache)
                self._session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
            return self._session


def _too_long(index: int, length: str, limit: int) -> EmbeddingFailed:
    error = EmbeddingFailed(
        f"The text at index {index} has {length}; the model reads at most {limit} tokens. Shorten it.",
        param="input",
    )
    error.transient = False
    return error
