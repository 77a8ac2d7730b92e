"""A document as it came in, before its first stage."""

from __future__ import annotations

import asyncio
from typing import Any

from crawler.contracts import Document
from crawler.errors import UnreadableDocument
from plugins.collections.originals import Originals
from plugins.collections.records import DocumentRecord


async def read(originals: Originals[Any], row: DocumentRecord) -> bytes:
    """The original of the row's revision.

    Raises:
        UnreadableDocument: It is not there.
    """
    async with originals.open(row.collection_id, row.id, row.revision) as path:
        if path is None:
            raise UnreadableDocument("The uploaded file is not there any more. Upload it again.")
        return await asyncio.to_thread(path.read_bytes)


def document(row: DocumentRecord, place: str, content: bytes) -> Document:
    """What is to be crawled.

    Args:
        row: The document's.
        place: Where its passages go in the store.
        content: Its original.
    """
    is_markdown = row.kind == "markdown"
    return Document(
        collection=place,
        document_id=row.id,
        revision=row.revision,
        source=row.filename,
        security_group=None if row.acl is None else tuple(row.acl),
        media_type=row.media_type,
        content=None if is_markdown else content,
        markdown=content.decode() if is_markdown else None,
        metadata=row.given,
        attributes=row.attributes,
    )
