"""Comma-separated values."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.formats import _separated
from crawler.formats._text import named
from crawler.settings import Settings


class Csv(Format[Settings]):
    """A table, separated by commas, semicolons, tabs or bars, with the types and ranges of its columns.

    In a file with semicolons a comma in a number is its decimal point.
    """

    def accepts(self, source: Source) -> bool:
        return named(source, {".csv"}, {"text/csv"})

    def convert(self, source: Source) -> Converted:
        return _separated.convert(source.content, ",;\t|")
