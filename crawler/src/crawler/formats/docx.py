"""Word documents (Office Open XML)."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.formats import _containers, _ooxml, _xberg
from crawler.settings import Settings

_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


class Docx(Format[Settings]):
    """Word documents since 2007, with headings, lists, tables, links and pictures.

    Pages are known where the program that saved it noted them, and as many as it counted.
    """

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"docx", "doc"}, {".docx", ".docm", ".dotx", ".dotm", ".doc"})

    def convert(self, source: Source) -> Converted:
        package = _ooxml.package(source)
        metadata = _ooxml.properties(package)
        document = _xberg.extract(source.content, _MEDIA_TYPE, "document.docx", pages=True)
        converted = _xberg.converted(document, with_images=source.with_images)
        count = _ooxml.extended(package, "pages")
        if count:
            metadata["page_count"] = count
        return converted.model_copy(
            update={
                "metadata": {**converted.metadata, **metadata},
                # Page breaks in the text are not all that there are, unless they add up.
                "pages": converted.pages if len(converted.pages) == count else (),
            }
        )
