"""How long the store is waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymilvus import MilvusException  # type: ignore[import-untyped]

from crawler.errors import StoreUnavailable
from crawler.stores._connection import NOT_LOADED, Connection

STEP_S = 0.15


class Released:
    """Stands in for a client of a server whose collections are not loaded, and which takes its time."""

    def __init__(self) -> None:
        self.asked = 0

    async def get_server_version(self) -> str:
        return "v2.3.5"

    async def load_collection(self, _name: str) -> None:
        await asyncio.sleep(STEP_S)

    async def query(self) -> list[str]:
        self.asked += 1
        await asyncio.sleep(STEP_S)
        raise MilvusException(NOT_LOADED, "collection not loaded")


async def test_loading_a_collection_does_not_lengthen_the_wait_for_an_answer() -> None:
    client: Any = Released()
    connection = Connection(lambda: client, STEP_S * 1.5)
    with pytest.raises(StoreUnavailable):
        await connection.loaded("handbook", lambda found: found.query())
    assert client.asked == 1
