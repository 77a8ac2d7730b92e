"""Excel workbooks (Office Open XML)."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.formats import _containers, _ooxml, _sheets
from crawler.settings import Settings


class Xlsx(Format[Settings]):
    """Workbooks since 2007, the binary kind (.xlsb) too: a table for each sheet."""

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"xlsx"}, {".xlsx", ".xlsm", ".xlsb", ".xltx", ".xltm"})

    def convert(self, source: Source) -> Converted:
        package = _ooxml.package(source)
        return _sheets.read(source.content, _ooxml.properties(package))
