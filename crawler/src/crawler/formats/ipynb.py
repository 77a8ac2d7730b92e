"""Jupyter notebooks (nbformat 3 and 4)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.formats._text import decode, fence, is_text
from crawler.settings import Settings

MAX_OUTPUT = 4_000
"""Characters of what one cell printed."""
_BROKEN = "The notebook could not be read. Open it in Jupyter, save it again and upload that."
_ESCAPES = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
_INFO = re.compile(r"[A-Za-z0-9+#.-]{1,30}")


class Ipynb(Format[Settings]):
    """Notebooks: their Markdown as it is, code in fences, and what it printed as far as it is text."""

    def accepts(self, source: Source) -> bool:
        begins_as_object = source.content[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
        return source.suffix == ".ipynb" and begins_as_object and is_text(source.content)

    def convert(self, source: Source) -> Converted:
        text, warnings = decode(source.content)
        try:
            notebook = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnreadableDocument(_BROKEN) from error
        cells = _cells(notebook)
        given = _mapping(notebook.get("metadata"))
        language = _language(given)
        parts: list[str] = []
        cut = 0
        for cell in cells:
            for part, whole in _parts(cell, language):
                parts.append(part)
                cut += not whole
        if cut:
            warnings = (*warnings, f"{cut} outputs were longer than {MAX_OUTPUT:,} characters and were cut.")
        metadata: dict[str, Any] = {"cell_count": len(cells)}
        if language:
            metadata["programming_language"] = language
        metadata |= {key: given[key] for key in ("title",) if isinstance(given.get(key), str)}
        return Converted(markdown="\n\n".join(parts), metadata=metadata, warnings=warnings)


def _cells(notebook: Any) -> list[Mapping[str, Any]]:
    """The cells; those of all worksheets in the old format."""
    if isinstance(notebook, dict):
        sheets = [notebook, *_sequence(notebook.get("worksheets"))]
        groups = [_sequence(_mapping(sheet).get("cells")) for sheet in sheets if "cells" in _mapping(sheet)]
        if groups:
            return [cell for group in groups for cell in group if isinstance(cell, dict)]
    raise UnreadableDocument(_BROKEN)


def _parts(cell: Mapping[str, Any], language: str) -> Iterator[tuple[str, bool]]:
    """Markdown, and whether all of it is there."""
    text = _joined(cell.get("source", cell.get("input"))).strip("\n")
    kind = cell.get("cell_type")
    if kind == "heading":  # nbformat 3
        level = cell.get("level")
        text = f"{'#' * (level if isinstance(level, int) and 1 <= level <= 6 else 1)} {text}"
    elif kind == "code" and text.strip():
        text = fence(text, language)
    if text.strip():
        yield text, True
    for output in _sequence(cell.get("outputs")) if kind == "code" else ():
        printed = _ESCAPES.sub("", _printed(_mapping(output))).strip("\n")
        if printed.strip():
            yield f"Output:\n\n{fence(printed[:MAX_OUTPUT])}", len(printed) <= MAX_OUTPUT


def _printed(output: Mapping[str, Any]) -> str:
    if output.get("output_type") in {"error", "pyerr"}:
        return f"{output.get('ename', 'Error')}: {output.get('evalue', '')}"
    data = _mapping(output.get("data"))
    return _joined(output.get("text") or data.get("text/markdown") or data.get("text/plain"))


def _language(metadata: Mapping[str, Any]) -> str:
    for place, key in (("language_info", "name"), ("kernelspec", "language")):
        found = _mapping(metadata.get(place)).get(key)
        if isinstance(found, str) and _INFO.fullmatch(found):
            return found.lower()
    return ""


def _joined(text: Any) -> str:
    """A text, which a notebook holds whole or in lines."""
    if isinstance(text, list):
        return "".join(line for line in text if isinstance(line, str))
    return text if isinstance(text, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
