"""JSON."""

from __future__ import annotations

import json
from typing import Any

from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.formats import _json
from crawler.formats._text import decode, named
from crawler.settings import Settings


class Json(Format[Settings]):
    """JSON: objects as sections, arrays of objects as tables, with the shape of the whole.

    A file of JSON lines under this name is read as such.
    """

    def accepts(self, source: Source) -> bool:
        return named(source, {".json", ".geojson", ".webmanifest"}, {"application/json"})

    def convert(self, source: Source) -> Converted:
        text, warnings = decode(source.content)
        try:
            value = _json.loads(text)
        except json.JSONDecodeError as error:
            value, wrong = _json.lines(text)
            if wrong:
                raise UnreadableDocument(
                    f"The file is not valid JSON: line {error.lineno}, column {error.colno}. "
                    "Correct it and upload it again."
                ) from error
        metadata: dict[str, Any] = {"shape": _json.shape(value)}
        if isinstance(value, list) and (table := _json.table(value)):
            metadata |= {"columns": table.columns(), "rows": table.rows}
        return Converted(markdown=_json.render(value), metadata=metadata, warnings=warnings)
