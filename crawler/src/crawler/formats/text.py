"""Plain text, kept as it is."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.formats._text import decode, is_text
from crawler.settings import Settings


class Text(Format[Settings]):
    """Plain text in UTF-8, in UTF-16 or -32 with a byte order mark, or in Windows-1252."""

    def accepts(self, source: Source) -> bool:
        named = source.suffix in {"", ".txt", ".text", ".log"} or source.media_type == "text/plain"
        return named and is_text(source.content)

    def convert(self, source: Source) -> Converted:
        text, warnings = decode(source.content)
        return Converted(markdown=text, warnings=warnings)
