"""Milvus with gates: a test can hold it before and after a write or a removal, and kill its process there."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from crawler.contracts import Document
from crawler.stores.milvus import Milvus

GATES = "TEST_GATES"
"""The environment variable that names the folder of gates: a file there closes the gate of its name."""


class GatedMilvus(Milvus):
    async def write(self, document: Document) -> int:
        await _gate("before-write")
        written = await super().write(document)
        await _gate("after-write")
        return written

    async def remove(self, name: str, document_id: str, *, keep: str | None = None) -> None:
        await _gate("before-remove")
        await super().remove(name, document_id, keep=keep)
        await _gate("after-remove")


async def _gate(name: str) -> None:
    gate = Path(os.environ[GATES]) / name
    if gate.exists():
        gate.with_suffix(".reached").touch()
        while gate.exists():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(0.01)
