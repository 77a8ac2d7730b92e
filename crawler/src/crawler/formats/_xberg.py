"""The one place that knows xberg, which reads several kinds of files.

Bytes only, never an address: given a URI it would fetch it.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from crawler.errors import DocumentTooLarge, UnreadableDocument

if TYPE_CHECKING:
    from xberg import ExtractedDocument

_LIMITS = {
    "max_archive_size": 256 * 2**20,
    "max_compression_ratio": 100,
    "max_files_in_archive": 5_000,
    "max_nesting_depth": 256,
    "max_entity_length": 2**20,
    "max_content_size": 64 * 2**20,
    "max_iterations": 10_000_000,
    "max_xml_depth": 256,
    "max_table_cells": 500_000,
}
_ACTIVE_LINK = re.compile(
    r"!?\[([^\]\n]*)\]\(\s*<?\s*(?:javascript|vbscript|data):(?:[^()\n]|\([^()\n]*\))*\)", re.IGNORECASE
)


def extract(content: bytes, media_type: str, filename: str, *, pages: bool = False) -> ExtractedDocument:
    """Read the bytes as ``media_type`` into Markdown; no OCR, no cache, no network.

    Raises:
        UnreadableDocument: xberg refuses the file; its own words are the cause.
        DocumentTooLarge: It trips one of xberg's security limits.
    """
    import xberg

    config = xberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,
        output_format="markdown",
        images=xberg.ImageExtractionConfig(extract_images=False),
        html_options=xberg.ConversionOptions(
            extract_metadata=False, inline_data_media="alt_text_only", compact_tables=True
        ),
        pages=xberg.PageConfig(extract_pages=True) if pages else None,
        security_limits=xberg.SecurityLimits(**_LIMITS),
    )
    source = xberg.ExtractInput(kind="bytes", bytes=content, mime_type=media_type, filename=filename)
    try:
        result = asyncio.run(xberg.extract(source, config))
    except (xberg.exceptions.XbergError, RuntimeError) as error:  # the plain one for a broken file
        if "security limit" in str(error).lower():
            raise DocumentTooLarge from error
        raise UnreadableDocument from error
    if not result.results:
        raise UnreadableDocument
    return result.results[0]


def without_active_links(markdown: str) -> str:
    """Links that run something when clicked, reduced to their text."""
    return _ACTIVE_LINK.sub(r"\1", markdown)


def properties(document: ExtractedDocument) -> dict[str, Any]:
    """The file's own properties, under the names of :class:`crawler.contracts.Converted`."""
    found = document.metadata
    metadata = {
        "title": found.title,
        "author": ", ".join(found.authors or ()),
        "language": found.language,
        "created_at": found.created_at,
        "modified_at": found.modified_at,
    }
    return {key: value for key, value in metadata.items() if value}
