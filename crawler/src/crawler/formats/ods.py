"""OpenDocument spreadsheets."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.formats import _containers, _odf, _sheets
from crawler.formats._package import Package
from crawler.settings import Settings


class Ods(Format[Settings]):
    """Spreadsheets of LibreOffice and others: a table for each sheet."""

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"ods"}, {".ods", ".ots"})

    def convert(self, source: Source) -> Converted:
        package = Package(source.content)
        _odf.refuse_encrypted(package)
        return _sheets.read(source.content, _odf.properties(package))
