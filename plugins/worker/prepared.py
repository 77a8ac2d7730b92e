"""What was made of a document so far, kept beside its original: who takes the job up repeats no stage."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from crawler.contracts import Document
from crawler.crawler import CrawlerConfig
from plugins.collections.originals import Originals
from plugins.collections.records import DocumentRecord, live_as

LEVEL = 1
"""Of gzip: text becomes a third, and fast."""


class Prepared(BaseModel):
    """A document as far as its stages are done, without its bytes and its vectors."""

    model_config = ConfigDict(frozen=True)

    pipeline: str
    """Digest of the settings that it was made with."""
    document: Document
    kind: str
    """As what its revision came in, with the next; the row says that of the last revision only."""
    given: dict[str, Any] | None
    notes: tuple[str, ...] = ()
    """Warnings of the worker's own."""


async def as_it_was(originals: Originals[Any], row: DocumentRecord) -> DocumentRecord:
    """The document's row as of its live revision, with the audience of then: also while a newer one is not
    complete, or when that failed."""
    if row.live_revision in (None, row.revision):
        return row
    live = replace(row, revision=row.live_revision, **live_as(row))
    found = await _kept(originals, row, live.revision)
    return live if found is None else replace(live, kind=found.kind, given=found.given)


def pipeline_digest(config: CrawlerConfig) -> str:
    """Tells whether a document would be made with the same settings."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


async def keep(
    originals: Originals[Any], row: DocumentRecord, document: Document, digest: str, notes: Sequence[str] = ()
) -> None:
    """Keep the document as far as it is done; durable when this returns."""
    prepared = Prepared(
        pipeline=digest,
        document=document.model_copy(update={"content": None}),
        kind=row.kind,
        given=row.given,
        notes=tuple(notes),
    )
    spooled = originals.spool_dir / f"{uuid.uuid4().hex}.prepared"
    await asyncio.to_thread(_write, spooled, prepared)
    await originals.put(row.collection_id, row.id, row.revision, spooled, "prepared")


async def kept(originals: Originals[Any], row: DocumentRecord, digest: str) -> Prepared | None:
    """What is kept of the row's revision; None when there is nothing of these settings.

    What the uploader says of the document, and who may read it, is the row's.
    """
    prepared = await _kept(originals, row, row.revision)
    if prepared is None or prepared.pipeline != digest:
        return None
    current = {
        "security_group": None if row.acl is None else tuple(row.acl),
        "attributes": row.attributes,
    }
    return prepared.model_copy(update={"document": prepared.document.model_copy(update=current)})


async def _kept(originals: Originals[Any], row: DocumentRecord, revision: str) -> Prepared | None:
    async with originals.open(row.collection_id, row.id, revision, "prepared") as path:
        return await asyncio.to_thread(_read, path) if path is not None else None


def _write(path: Path, prepared: Prepared) -> None:
    with gzip.open(path, "wb", compresslevel=LEVEL) as file:
        file.write(prepared.model_dump_json().encode())


def _read(path: Path) -> Prepared | None:
    try:
        with gzip.open(path) as file:
            return Prepared.model_validate_json(file.read())
    except (OSError, EOFError, zlib.error, ValidationError):
        return None  # of another version, or not whole: it is made again
