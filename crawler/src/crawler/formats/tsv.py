"""Tab-separated values."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.formats import _separated
from crawler.formats._text import named
from crawler.settings import Settings


class Tsv(Format[Settings]):
    """A table, separated by tabs, with the types and ranges of its columns."""

    def accepts(self, source: Source) -> bool:
        return named(source, {".tsv", ".tab"}, {"text/tab-separated-values"})

    def convert(self, source: Source) -> Converted:
        return _separated.convert(source.content, "\t")
