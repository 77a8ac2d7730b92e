"""OpenDocument presentations."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from crawler.contracts import Converted, Format, Source
from crawler.formats import _containers, _odf
from crawler.formats._markdown import Writer
from crawler.formats._package import Package
from crawler.settings import Settings

_CLASS = f"{_odf.PRESENTATION}class"
_NOTES = f"{_odf.PRESENTATION}notes"


class Odp(Format[Settings]):
    """Presentations of LibreOffice and others: a page for each slide, its title as heading; text, lists,
    tables, links, pictures and the speaker's notes."""

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"odp"}, {".odp", ".otp"})

    def convert(self, source: Source) -> Converted:
        package = Package(source.content)
        _odf.refuse_encrypted(package)
        writer = Writer(with_images=source.with_images)
        body = _odf.Body(package, writer)
        slides = list(body.content.iter(f"{_odf.DRAW}page"))
        for slide in slides:
            writer.page()
            _write(slide, body, writer)
        return writer.converted(_odf.properties(package), slides=len(slides), page_count=len(slides))


def _write(slide: Element, body: _odf.Body, writer: Writer) -> None:
    """The title first, then the shapes in their order, then the notes."""
    titles = [shape for shape in slide if shape.get(_CLASS) == "title"]
    writer.heading(1 if len(writer.pages) == 1 else 2, " ".join(map(body.words, titles)))
    for shape in slide:
        if shape.tag == f"{_odf.DRAW}frame" and shape not in titles:
            body.frame(shape)
        elif shape.tag.startswith(_odf.DRAW) and shape not in titles:
            body.blocks(shape)
    for notes in slide.iter(_NOTES):
        words = body.words(notes)
        writer.block(f"Notes: {words}" if words else "")
