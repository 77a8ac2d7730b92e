"""Rows by document, in windows that fit an answer; with Strong consistency, since who reads so wants all."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import islice
from typing import Any

from crawler.errors import StoreError
from crawler.store import Hit, Row
from crawler.stores import _filters, _rows
from crawler.stores._connection import Connection

WINDOW = 16_384
"""The most rows of one query of Milvus."""
PASSAGES = 500
"""Rows with their text in one query, for the size of its answer."""
TOGETHER = 100
"""Documents of one query."""
ROWS, FEW_ROWS = 4000, 100
"""Rows with their vectors in one query: what is usual fits an answer, and what is not is asked for in parts.
Each query looks at the whole collection where no index helps, so there should be few."""


async def passages(
    connection: Connection, name: str, base: str, pages: tuple[int, int] | None, limit: int
) -> list[Hit]:
    """The rows that the expression ``base`` admits, which are of one revision, in their order."""
    wanted = await _indexes_of(connection, name, base, pages)
    hits: list[Hit] = []
    for start in range(0, len(wanted[:limit]), PASSAGES):
        part = wanted[:limit][start : start + PASSAGES]
        found = await _query(connection, name, f"{_between(part[0], part[-1])} and {base}", _rows.OUTPUT)
        admitted = set(part)
        hits += [_rows.hit(row) for row in found if row["chunk_index"] in admitted]
    return sorted(hits, key=lambda hit: hit.index)


async def _indexes_of(
    connection: Connection, name: str, base: str, pages: tuple[int, int] | None
) -> list[int]:
    """The chunk indexes of one revision in their order; they are 0, 1, 2, ... without gaps."""
    first, last = pages or (0, 2**62)
    found: list[int] = []
    fields = ["chunk_index", "page_first", "page_last"]
    for start in range(0, 2**62, WINDOW):
        rows = await _query(connection, name, f"{_between(start, start + WINDOW - 1)} and {base}", fields)
        found += [
            row["chunk_index"] for row in rows if row["page_first"] <= last and row["page_last"] >= first
        ]
        if len(rows) < WINDOW:
            break
    return sorted(found)


async def rows(connection: Connection, name: str, revisions: Mapping[str, str]) -> AsyncIterator[Row]:
    """See :meth:`crawler.store.Store.rows`."""
    ids, most = iter(revisions), ROWS
    while part := {document_id: revisions[document_id] for document_id in islice(ids, TOGETHER)}:
        start = 0
        while part:
            each = max(1, most // len(part))
            window = f"{_between(start, start + each - 1)} and {_filters.of_documents(part)}"
            try:
                found = await _query(connection, name, window, [*_rows.OUTPUT, "dense"])
            except StoreError:
                if most <= FEW_ROWS:
                    raise
                most //= 4  # the answer may be too large
                continue
            counted = Counter[str]()
            for row in found:
                if part.get(row["doc_id"]) == row["revision"]:
                    counted[row["doc_id"]] += 1
                    yield _row(row)
            # the passages of a document are numbered without gaps: one that lacks some here has no more
            part = {document_id: part[document_id] for document_id in part if counted[document_id] == each}
            start += each


def _row(row: Mapping[str, Any]) -> Row:
    return Row(
        document_id=row["doc_id"],
        revision=row["revision"],
        index=row["chunk_index"],
        page_first=row["page_first"],
        page_last=row["page_last"],
        text=row["text"],
        acl_key=row["acl_key"],
        meta=row["meta"],
        vector=array("f", row["dense"]),
    )


async def _query(
    connection: Connection, name: str, expression: str, fields: Sequence[str]
) -> list[dict[str, Any]]:
    return await connection.loaded(
        name,
        lambda client: client.query(
            name, filter=expression, output_fields=list(fields), limit=WINDOW, consistency_level="Strong"
        ),
    )


def _between(first: int, last: int) -> str:
    return f"chunk_index >= {first} and chunk_index <= {last}"
