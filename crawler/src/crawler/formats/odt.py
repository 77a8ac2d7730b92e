"""OpenDocument texts."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.formats import _containers, _odf
from crawler.formats._markdown import Writer
from crawler.formats._package import Package
from crawler.settings import Settings


class Odt(Format[Settings]):
    """Texts of LibreOffice and others: headings, lists, tables, links, pictures and footnotes.

    Pages are known where the program that saved it noted them, and as many as it counted.
    """

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"odt"}, {".odt", ".ott"})

    def convert(self, source: Source) -> Converted:
        package = Package(source.content)
        _odf.refuse_encrypted(package)
        metadata = _odf.properties(package)
        writer = Writer(with_images=source.with_images)
        writer.page()
        body = _odf.Body(package, writer)
        for text in body.content.iter(f"{_odf.OFFICE}text"):
            body.blocks(text)
        if len(writer.pages) != metadata.get("page_count"):
            writer.pages.clear()
        return writer.converted(metadata)
