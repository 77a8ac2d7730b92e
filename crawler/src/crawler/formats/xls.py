"""Excel workbooks of the time before 2007 (BIFF in a compound file)."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.formats import _containers, _package, _sheets
from crawler.settings import Settings

_PROPERTIES = {
    "title": "title",
    "author": "author",
    "subject": "subject",
    "keywords": "keywords",
    "create_time": "created_at",
    "last_saved_time": "modified_at",
}
_UTF8 = 65001


class Xls(Format[Settings]):
    """Excel 97 to 2003: a table for each sheet."""

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"xls"}, {".xls", ".xlt"})

    def convert(self, source: Source) -> Converted:
        if _containers.kind(source) == "encrypted":
            raise UnreadableDocument(_package.ENCRYPTED)
        return _sheets.read(source.content, _properties(source.content))


def _properties(content: bytes) -> dict[str, Any]:
    """What the stream SummaryInformation says ([MS-OLEPS] 2.23); nothing where it cannot be read."""
    import olefile  # type: ignore[import-untyped]

    try:
        with olefile.OleFileIO(io.BytesIO(content)) as file:
            found = file.get_metadata()
    except Exception:  # noqa: BLE001  olefile raises anything for broken files; the sheets may be whole
        return {}
    page = found.codepage or 1252
    encoding = "utf-8" if page in {_UTF8, _UTF8 - 2**16} else f"cp{page % 2**16}"
    values: dict[str, Any] = {}
    for name, key in _PROPERTIES.items():
        value = getattr(found, name)
        if isinstance(value, datetime) and value.year > 1601:
            values[key] = value.isoformat()
        elif isinstance(value, bytes):
            values[key] = _decoded(value, encoding)
    return {key: value for key, value in values.items() if value}


def _decoded(value: bytes, encoding: str) -> str:
    try:
        return value.decode(encoding, "replace").strip("\0 ")
    except LookupError:  # a code page that Python does not know
        return value.decode("cp1252", "replace").strip("\0 ")
