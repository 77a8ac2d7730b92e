"""Markdown, kept as it is."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.formats._text import decode, named
from crawler.settings import Settings


class Markdown(Format[Settings]):
    """Markdown, in any encoding that plain text may have. Front matter is text like any other."""

    def accepts(self, source: Source) -> bool:
        return named(source, {".md", ".markdown", ".mdown"}, {"text/markdown"})

    def convert(self, source: Source) -> Converted:
        text, warnings = decode(source.content)
        return Converted(markdown=text, warnings=warnings)
