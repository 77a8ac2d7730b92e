"""Metadata by rules: what the file says of itself, then what its text shows, then its name."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any

from crawler.blocks import stream
from crawler.contracts import Converted, Extracted, Extractor, Services
from crawler.settings import Settings

MAX_TITLE = 120
"""Characters. The title is part of every chunk's indexed text, and must leave room for the content."""
MAX_METADATA_BYTES = 65_536
"""Of a document's metadata as JSON."""
_HEAD = 65_536
_MIN_LETTERS = 40
"""Fewer letters do not tell a language."""
_LIKELY = 0.5
"""How likely a language must be: names and numbers of a table, say, look a little like many."""
_DATA = frozenset({"columns", "shape", "sheets"})
"""Properties of what is data and no text: its headings are names of sheets and keys, and no titles."""
_NO_TITLE = re.compile(
    r"(microsoft (word|powerpoint|excel) - |untitled|unbenannt|document ?\d*$|dokument ?\d*$|slide 1$)"
    r"|.*\.(docx?|pdf|indd|qxd|tex|dvi|pptx?|xlsx?|rtf|odt)$",
    re.IGNORECASE,
)
_COUNTS = ("page_count", "image_count", "table_count")
"""What a format may know better than the Markdown tells."""
_WORD = re.compile(r"\S+")
_IMAGE = re.compile(r"!\[[^\[\]]*\]\(")
_LONGEST_KEY = 100
_MAX_KEYWORDS = 50
_LONGEST_KEYWORDS = 2_000
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Rules(Extractor[Settings]):
    """Finds ``title`` (always), ``language`` (ISO 639-1), ``author``, ``subject``, ``keywords``,
    ``created_at`` and ``modified_at`` (ISO 8601 dates), ``page_count``, ``word_count``, ``table_count`` and
    ``image_count``, and passes on what else the file says of itself (``sheets``, ``columns``, ``functions``,
    ...); what is not known is left out."""

    async def extract(self, filename: str, converted: Converted, services: Services) -> Extracted:
        metadata = await asyncio.to_thread(find, filename, converted)
        return bounded(metadata)


def bounded(metadata: Mapping[str, Any]) -> Extracted:
    """``metadata`` up to ``MAX_METADATA_BYTES`` as JSON; what does not fit is left out, with a warning."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    size = 2
    for key, value in metadata.items():
        length = len(json.dumps({key: value}).encode())
        if size + length > MAX_METADATA_BYTES:
            left_out.append(key)
        else:
            kept[key] = value
            size += length
    warnings = (f"Too long to be kept as metadata: {', '.join(left_out)[:200]}.",) if left_out else ()
    return Extracted(metadata=kept, warnings=warnings)


def find(filename: str, converted: Converted) -> dict[str, Any]:
    """What the rules find; see :class:`Rules`. Blocks."""
    given = converted.metadata
    found: dict[str, Any] = {
        "title": _title(filename, converted),
        "language": _language(converted.markdown[:_HEAD]) or _primary(given.get("language")),
        "author": _text(given.get("author"), 200),
        "page_count": len(converted.pages) or None,
        "word_count": sum(1 for _ in _WORD.finditer(converted.markdown)),
        "table_count": sum(block.kind == "table" for block in stream(converted.markdown)),
        "image_count": len(_IMAGE.findall(converted.markdown)),
        "subject": _text(given.get("subject"), 500),
        "keywords": _keywords(given.get("keywords")),
    }
    counts = {key: given[key] for key in _COUNTS if type(given.get(key)) is int}
    found |= counts
    for key in ("created_at", "modified_at"):
        found[key] = _day(given.get(key))
    others = {
        key[:_LONGEST_KEY]: value for key, value in given.items() if key not in found and _is_json(value)
    }
    return {key: value for key, value in (found | others).items() if value is not None}


def _day(value: Any) -> str | None:
    """The day of a date in ISO 8601; None for one that no calendar has (year 0, say)."""
    match = _DATE.match(str(value or ""))
    try:
        return date.fromisoformat(match[0]).isoformat() if match else None
    except ValueError:
        return None


def _keywords(value: Any) -> list[str] | None:
    """A list, which many programs write as one text with commas or semicolons."""
    if isinstance(value, str):
        value = re.split(r"[,;]", value[:_LONGEST_KEYWORDS])
    words = [_text(word, 100) for word in value[:_MAX_KEYWORDS]] if isinstance(value, list) else []
    return [word for word in words if word] or None


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _text(value: Any, longest: int) -> str | None:
    """A property as one line. Properties come from the file: they may be anything."""
    return (
        " ".join(value[: 4 * longest].split())[:longest].strip() or None if isinstance(value, str) else None
    )


def _title(filename: str, converted: Converted) -> str:
    given = _text(converted.metadata.get("title"), MAX_TITLE)
    if given and not _NO_TITLE.match(given):
        return given
    is_data = not _DATA.isdisjoint(converted.metadata)
    for block in stream("" if is_data else converted.markdown[:_HEAD]):
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
    language, likelihood = _identifier().classify(" ".join(letters.split()))
    return str(language) if likelihood >= _LIKELY else None


def _primary(tag: Any) -> str | None:
    """The language of a tag without its region: ``en`` of ``en-US`` (BCP 47, and as POSIX writes it)."""
    language = _text(tag, 35)
    return re.split("[-_]", language)[0].lower() or None if language else None


@cache
def _identifier() -> Any:
    """Made once: it takes a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
