"""JSON lines."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.formats import _json
from crawler.formats._text import decode, named
from crawler.settings import Settings

_TYPES = {"application/jsonl", "application/x-ndjson", "application/x-jsonlines"}


class Jsonl(Format[Settings]):
    """JSON lines: a table where the objects are flat, else a section each."""

    def accepts(self, source: Source) -> bool:
        return named(source, {".jsonl", ".ndjson"}, _TYPES)

    def convert(self, source: Source) -> Converted:
        text, warnings = decode(source.content)
        values, wrong = _json.lines(text)
        if len(wrong) == len(values):
            raise UnreadableDocument("No line of the file is JSON. Correct it and upload it again.")
        if wrong:
            first = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            warnings = (*warnings, f"Lines that are not JSON and were kept as text ({len(wrong)}): {first}.")
        table = _json.table(values)
        metadata = {"columns": table.columns() if table else [], "rows": len(values)}
        if not table:
            metadata["shape"] = _json.shape(values)
        markdown = table.markdown() if table else _json.render(values)
        return Converted(markdown=markdown, metadata=metadata, warnings=warnings)
