"""The schema of a collection in Milvus, and passages as its rows.

``text`` is what BM25 indexes: the ``title > heading`` prefix and the content. ``meta`` keeps what a hit
shows: ``headings``, ``start``, ``end``, ``prefix`` (its length in ``text``, in characters), ``fields``
(ours: ``filename``, ``title``, ``language``, ``created_at``) and ``attributes`` (the uploader's).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pymilvus import (  # type: ignore[import-untyped]
    AsyncMilvusClient,
    CollectionSchema,
    DataType,
    Function,
    FunctionType,
)
from pymilvus.milvus_client import IndexParams  # type: ignore[import-untyped]

from crawler.contracts import Chunk, Document, audience_key, chunk_id
from crawler.errors import FilterError, StoreRefused
from crawler.store import Hit, Metric, Row
from crawler.stores._filters import epoch_seconds

MAX_TEXT_BYTES = 65_535
"""The longest VARCHAR of Milvus; a JSON field is limited to 65,536 bytes as well."""
# A gRPC message may have 64 MiB on a Milvus server; the estimate below is rough.
BATCH_BYTES = 16 * 1024 * 1024
BATCH_ROWS = 1000

META = {"headings", "start", "end", "prefix", "fields", "attributes"}
OUTPUT = ["id", "doc_id", "revision", "chunk_index", "page_first", "page_last", "text", "acl_key", "meta"]


def schema(dimension: int, *, hybrid: bool) -> CollectionSchema:
    """The fields of a collection; with ``sparse`` where Milvus computes BM25 (2.5 and later)."""
    made = AsyncMilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    made.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    for name in ("doc_id", "revision"):
        made.add_field(name, DataType.VARCHAR, max_length=128)
    for name in ("chunk_index", "page_first", "page_last"):
        made.add_field(name, DataType.INT64)
    made.add_field("text", DataType.VARCHAR, max_length=MAX_TEXT_BYTES, enable_analyzer=hybrid)
    made.add_field("acl_key", DataType.VARCHAR, max_length=32)
    made.add_field("meta", DataType.JSON)
    made.add_field("dense", DataType.FLOAT_VECTOR, dim=dimension)
    if hybrid:
        made.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        made.add_function(Function("bm25", FunctionType.BM25, ["text"], ["sparse"]))
    return made


def indexes(metric: Metric, kind: str, params: Mapping[str, Any], *, hybrid: bool) -> dict[str, IndexParams]:
    """The index of each field that has one; scalar ones where the server is new enough for BM25."""
    wanted: dict[str, dict[str, Any]] = {
        "dense": {"index_type": kind, "metric_type": metric, "params": dict(params)}
    }
    if hybrid:
        wanted["sparse"] = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25"}
        wanted |= {field: {"index_type": "INVERTED"} for field in ("acl_key", "doc_id")}
    made = {}
    for field, settings in wanted.items():
        made[field] = IndexParams()
        made[field].add_index(field, **settings)
    return made


def batches(document: Document) -> Iterator[list[dict[str, Any]]]:
    """The document's chunks as rows, in batches that fit a message.

    Raises:
        StoreRefused: A passage is too long for Milvus.
        ValueError: A chunk has no embedding.
    """
    common = {"fields": _fields(document), "attributes": document.attributes}
    return _batches(_row(document, chunk, common) for chunk in document.chunks)


def restored(name: str, rows: Iterable[Row], dimension: int) -> Iterator[list[dict[str, Any]]]:
    """Rows that were given out as rows of the collection ``name``, in batches that fit a message.

    Raises:
        StoreRefused: They are not rows of ours, or have vectors of another dimension.
    """
    return _batches(_restored(name, row, dimension) for row in rows)


def _batches(rows: Iterable[tuple[dict[str, Any], int]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for made, length in rows:
        if batch and (size + length > BATCH_BYTES or len(batch) == BATCH_ROWS):
            yield batch
            batch, size = [], 0
        batch.append(made)
        size += length
    if batch:
        yield batch


def _restored(name: str, row: Row, dimension: int) -> tuple[dict[str, Any], int]:
    meta = dict(row.meta)
    text_bytes, meta_bytes = len(row.text.encode()), len(json.dumps(meta, ensure_ascii=False).encode())
    if meta.keys() != META or not isinstance(meta["prefix"], int) or len(row.vector) != dimension:
        raise StoreRefused("These passages are not of a collection like this one.")
    document = Document(collection=name, document_id=row.document_id, revision=row.revision, source="")
    content = row.text[meta["prefix"] :]
    return {
        "id": chunk_id(document, Chunk(index=row.index, start=0, end=0, content=content)),
        "doc_id": row.document_id,
        "revision": row.revision,
        "chunk_index": row.index,
        "page_first": row.page_first,
        "page_last": row.page_last,
        "text": row.text,
        "acl_key": row.acl_key,
        "meta": meta,
        "dense": row.vector.tolist(),
    }, text_bytes + meta_bytes + 4 * dimension


def _row(document: Document, chunk: Chunk, common: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    if chunk.dense is None:
        raise ValueError(f"chunk {chunk.index} has no embedding")
    text = chunk.indexed_text(common["fields"].get("title"))
    meta = {
        "headings": list(chunk.headings),
        "start": chunk.start,
        "end": chunk.end,
        "prefix": len(text) - len(chunk.content),
        **common,
    }
    text_bytes, meta_bytes = len(text.encode()), len(json.dumps(meta, ensure_ascii=False).encode())
    if max(text_bytes, meta_bytes) > MAX_TEXT_BYTES:
        raise StoreRefused("A passage with its headings or its metadata is longer than 65,535 bytes.")
    return {
        "id": chunk_id(document, chunk),
        "doc_id": document.document_id,
        "revision": document.revision,
        "chunk_index": chunk.index,
        "page_first": chunk.page_first or 0,
        "page_last": chunk.page_last or chunk.page_first or 0,
        "text": text,
        "acl_key": audience_key(document.security_group),
        "meta": meta,
        "dense": list(chunk.dense),
    }, text_bytes + meta_bytes + 4 * len(chunk.dense)


def _fields(document: Document) -> dict[str, Any]:
    metadata = document.metadata or {}
    found: dict[str, Any] = {"filename": document.source}
    found.update({key: metadata[key] for key in ("title", "language") if isinstance(metadata.get(key), str)})
    created = metadata.get("created_at")
    if isinstance(created, str):
        try:
            created = epoch_seconds(created)
        except FilterError:
            created = None  # a file may say anything there; it is only not found by its date
    if isinstance(created, int | float):
        found["created_at"] = created
    return found


def hit(row: Mapping[str, Any], score: float = 0.0) -> Hit:
    """A row with the fields of ``OUTPUT`` as a hit; our own fields win over attributes of their names."""
    meta = row["meta"]
    return Hit(
        id=row["id"],
        document_id=row["doc_id"],
        revision=row["revision"],
        index=row["chunk_index"],
        content=row["text"][meta["prefix"] :],
        headings=tuple(meta["headings"]),
        page_first=row["page_first"] or None,
        page_last=row["page_last"] or None,
        start=meta["start"],
        end=meta["end"],
        acl_key=row["acl_key"],
        attributes={**meta["attributes"], **meta["fields"]},
        score=score,
    )
