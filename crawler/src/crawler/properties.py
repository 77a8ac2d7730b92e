"""What is known of a document, and which of it filters may name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

PLACES = frozenset(
    {
        "collection",
        "collection_id",
        "document_id",
        "filename",
        "headings",
        "page",
        "page_first",
        "page_last",
    }
)
"""What every passage says of its own place: nobody else may say it."""
PROPERTIES = frozenset(
    {
        "author",
        "classes",
        "columns",
        "created_at",
        "functions",
        "image_count",
        "imports",
        "keywords",
        "language",
        "modified_at",
        "page_count",
        "rows",
        "shape",
        "sheets",
        "slides",
        "subject",
        "table_count",
        "title",
        "word_count",
    }
)
"""What conversion and rules find. All else that is known of a document came from its uploader, or was asked
for by its pipeline."""
MAX_KEY = 64
"""Characters."""
MAX_TEXT = 512
"""Characters of an attribute's text, as of OpenAI's file attributes."""
MAX_INTEGER = 2**53 - 1
"""What JSON numbers hold exactly everywhere (RFC 8259, section 6)."""
MAX_DEPTH = 32
"""Of lists and objects in each other: answers could not show much more."""
MAX_ATTRIBUTES_BYTES = 16 * 1024
"""Of what is found: it lies beside each passage, in a field of 64 KiB with other things."""


def is_too_deep(metadata: Mapping[str, Any]) -> bool:
    """Whether lists and objects lie in each other more than `MAX_DEPTH` deep."""
    level: list[Any] = [metadata]
    for _ in range(MAX_DEPTH):
        inside = [
            value for found in level for value in (found.values() if isinstance(found, Mapping) else found)
        ]
        level = [value for value in inside if isinstance(value, Mapping | list)]
    return bool(level)


def is_attribute(key: str, value: Any) -> bool:
    """Whether a value under this name can be an attribute: a scalar that is short, and no property."""
    if key in PROPERTIES or key in PLACES or not 1 <= len(key) <= MAX_KEY:
        return False
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) <= MAX_INTEGER


def attributes_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the metadata that filters may name, as far as there is room for them."""
    found: dict[str, Any] = {}
    size = 0
    for key, value in metadata.items():
        if is_attribute(key, value):
            size += len(json.dumps({key: value}))
            if size > MAX_ATTRIBUTES_BYTES:
                break
            found[key] = value
    return found
