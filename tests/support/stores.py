"""A store with passages, for the store's contract: small documents, queries and vectors."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from crawler.contracts import Chunk, Document, audience_key
from crawler.store import Filter, Hit, Query, Ranker

DIMENSION = 8
EVERYONE = frozenset({"everyone"})
ALICE = audience_key(["user:keycloak/alice"])
BOB = audience_key(["user:keycloak/bob"])


def vector(angle: float) -> tuple[float, ...]:
    """A unit vector; the nearer two angles (radians), the higher the cosine."""
    return (math.cos(angle), math.sin(angle)) + (0.0,) * (DIMENSION - 2)


def document(
    collection: str,
    texts: list[str],
    *,
    document_id: str = "doc",
    revision: str = "r1",
    group: tuple[str, ...] | None = None,
    title: str = "Handbook",
    attributes: dict[str, object] | None = None,
) -> Document:
    chunks = tuple(
        Chunk(
            index=index,
            start=10 * index,
            end=10 * index + len(text),
            content=text,
            headings=("Leave", "Notice"),
            page_first=index + 1,
            page_last=index + 1,
            dense=vector(index / 100),
        )
        for index, text in enumerate(texts)
    )
    return Document(
        collection=collection,
        document_id=document_id,
        revision=revision,
        source="handbook.pdf",
        security_group=group,
        metadata={"title": title, "language": "en", "created_at": "2026-01-02T03:04:05Z"},
        attributes=attributes or {},
        chunks=chunks,
    )


def query(
    text: str = "notice", ranker: Ranker = "rrf", limit: int = 50, filters: Filter | None = None
) -> Query:
    return Query(
        text=text,
        vector=vector(0),
        ranker=ranker,
        limit=limit,
        filters=filters,
        fresh=True,
        fields={"code": "string", "year": "number", "draft": "boolean"},
    )


def documents(hits: list[Hit]) -> set[str]:
    return {hit.document_id for hit in hits}


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)
