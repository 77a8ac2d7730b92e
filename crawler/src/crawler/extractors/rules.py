"""Metadata by rules: what the file says of itself, then what its text shows, then its name."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from crawler.blocks import scan
from crawler.contracts import Converted, Extracted, Extractor, Services
from crawler.settings import Settings

MAX_TITLE = 120
"""Characters. The title is part of every chunk's indexed text, and must leave room for the content."""
_HEAD = 65_536
_MIN_LETTERS = 40
"""Fewer letters do not tell a language."""
_NO_TITLE = re.compile(
    r"(microsoft (word|powerpoint|excel) - |untitled|unbenannt|document ?\d*$|dokument ?\d*$|slide 1$)"
    r"|.*\.(docx?|pdf|indd|qxd|tex|dvi|pptx?|xlsx?|rtf|odt)$",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Rules(Extractor[Settings]):
    """Finds ``title`` (always), ``language`` (ISO 639-1), ``author``, ``created_at`` and ``modified_at``
    (ISO 8601 dates), ``page_count`` and ``word_count``; what is not known is left out."""

    async def extract(self, filename: str, converted: Converted, services: Services) -> Extracted:
        return Extracted(metadata=await asyncio.to_thread(find, filename, converted))


def find(filename: str, converted: Converted) -> dict[str, Any]:
    """What the rules find; see :class:`Rules`. Blocks."""
    given = converted.metadata
    found: dict[str, Any] = {
        "title": _title(filename, converted),
        "language": _language(converted.markdown[:_HEAD]) or _text(given.get("language"), 8),
        "author": _text(given.get("author"), 200),
        "page_count": len(converted.pages) or None,
        "word_count": len(converted.markdown.split()),
    }
    for key in ("created_at", "modified_at"):
        date = _DATE.match(str(given.get(key, "")))
        found[key] = date[0] if date else None
    return {key: value for key, value in found.items() if value is not None}


def _text(value: Any, longest: int) -> str | None:
    """A property as one line. Properties come from the file: they may be anything."""
    return (
        " ".join(value[: 4 * longest].split())[:longest].strip() or None if isinstance(value, str) else None
    )


def _title(filename: str, converted: Converted) -> str:
    given = _text(converted.metadata.get("title"), MAX_TITLE)
    if given and not _NO_TITLE.match(given):
        return given
    for block in scan(converted.markdown[:_HEAD]):
        heading = _text(block.text, MAX_TITLE) if block.kind == "heading" else None
        if heading:
            return heading
    stem = filename.replace("\\", "/").rpartition("/")[2]
    stem = stem.rpartition(".")[0] or stem
    return _text(stem.replace("_", " "), MAX_TITLE) or "Untitled"


def _language(text: str) -> str | None:
    letters = "".join(character if character.isalpha() else " " for character in text[:8192])
    if sum(map(str.isalpha, letters)) < _MIN_LETTERS:
        return None
    import py3langid  # type: ignore[import-untyped]

    language, _ = py3langid.classify(" ".join(letters.split()))
    return str(language)
