"""PowerPoint presentations (Office Open XML)."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.formats import _containers, _ooxml
from crawler.formats._markdown import Writer, link
from crawler.formats._ooxml import Relationship
from crawler.formats._package import Package
from crawler.settings import Settings

_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_TITLES = {"title", "ctrTitle"}
_BODIES = {"", "body", "obj"}
_FURNITURE = {"dt", "ftr", "sldNum", "hdr"}
_LEVELS = 9


class Pptx(Format[Settings]):
    """Presentations since 2007: a page for each slide, its title as heading; text, lists, tables, links,
    pictures, charts' numbers and the speaker's notes. Hidden slides are read too."""

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"pptx", "ppt"}, {".pptx", ".pptm", ".ppsx", ".potx", ".ppt"})

    def convert(self, source: Source) -> Converted:
        package = _ooxml.package(source)
        writer = Writer(with_images=source.with_images)
        slides = _slides(package)
        for slide in slides:
            writer.page()
            _Slide(package, slide, writer).write()
        return writer.converted(_ooxml.properties(package), slides=len(slides), page_count=len(slides))


def _slides(package: Package) -> list[str]:
    """The names of the slides' parts, in their order (ECMA-376 part 1, 19.2.1.34)."""
    main = "ppt/presentation.xml"
    root = package.xml(main)
    if root is None:
        raise UnreadableDocument
    known = _ooxml.relationships(package, main)
    targets = (known.get(slide.get(f"{_R}id", "")) for slide in root.iter(f"{_P}sldId"))
    # Each once, however often it is named.
    return list(dict.fromkeys(each.target for each in targets if each and each.kind == "slide"))


class _Slide:
    def __init__(self, package: Package, part: str, writer: Writer) -> None:
        self._package = package
        self._part = part
        self._known = _ooxml.relationships(package, part)
        self._writer = writer

    def write(self) -> None:
        """The title first, then the shapes in their order, which is the order screen readers take."""
        root = self._package.xml(self._part)
        shapes = list(_shapes(root)) if root is not None else []
        titles = [shape for shape in shapes if _placeholder(shape) in _TITLES]
        self._writer.heading(1 if len(self._writer.pages) == 1 else 2, " ".join(map(self._words, titles)))
        for shape in shapes:
            if shape not in titles and _placeholder(shape) not in _FURNITURE:
                self._shape(shape)
        self._notes()

    def _words(self, shape: Element) -> str:
        return " ".join(self._text(paragraph, {}) for paragraph in shape.iter(f"{_A}p"))

    def _shape(self, shape: Element) -> None:
        if shape.tag == f"{_P}pic":
            self._picture(shape)
        elif shape.tag == f"{_P}sp":
            self._paragraphs(shape, listed=_placeholder(shape) in _BODIES)
        else:
            for table in shape.iter(f"{_A}tbl"):
                self._writer.table([self._cells(row) for row in table.iter(f"{_A}tr")])
            for reference in shape.iter():
                self._drawing(reference)

    def _cells(self, row: Element) -> list[str]:
        return [self._words(cell) for cell in row.iter(f"{_A}tc")]

    def _paragraphs(self, shape: Element, *, listed: bool) -> None:
        """Paragraphs; those with a bullet, and those of a body that do not refuse its bullets, as items."""
        before, number = False, 0
        for paragraph in shape.iter(f"{_A}p"):
            text = self._text(paragraph, self._known)
            style = paragraph.find(f"{_A}pPr")
            marks = {child.tag.removeprefix(_A) for child in style} if style is not None else set()
            item = bool(marks & {"buChar", "buAutoNum", "buBlip"}) or (listed and "buNone" not in marks)
            if text and item:
                level = style.get("lvl", "0") if style is not None else "0"
                indent = "  " * min(int(level) if level.isdecimal() else 0, _LEVELS)
                number = number + 1 if "buAutoNum" in marks else 0
                self._writer.block(f"{indent}{f'{number}.' if number else '-'} {text}", tight=before)
            else:
                self._writer.block(text)
            before = bool(text and item)
            number = number if before else 0

    def _text(self, paragraph: Element, links: Mapping[str, Relationship]) -> str:
        parts = []
        for run in paragraph:
            if run.tag == f"{_A}br":
                parts.append(" ")
            text = "".join(element.text or "" for element in run.iter(f"{_A}t"))
            click = run.find(f"{_A}rPr/{_A}hlinkClick")
            target = links.get(click.get(f"{_R}id", "")) if click is not None else None
            parts.append(link(text, target.target) if target and target.external else text)
        return " ".join("".join(parts).split())

    def _picture(self, shape: Element) -> None:
        properties = shape.find(f"{_P}nvPicPr/{_P}cNvPr")
        blip = shape.find(f".//{_A}blip")
        known = self._known.get(blip.get(f"{_R}embed", "")) if blip is not None else None
        content = self._package.read(known.target) if known and not known.external else None
        name = known.target if known else ""
        self._writer.image(mimetypes.guess_type(name)[0] or "application/octet-stream", content)
        self._writer.block(" ".join(properties.get("descr", "").split()) if properties is not None else "")

    def _drawing(self, reference: Element) -> None:
        """A chart's numbers as a table, a diagram's words as items."""
        chart = self._known.get(reference.get(f"{_R}id", "")) if reference.tag == f"{_C}chart" else None
        diagram = self._known.get(reference.get(f"{_R}dm", ""))
        if chart and (root := self._package.xml(chart.target)) is not None:
            self._writer.block(" ".join(_texts(root.find(f"{_C}chart/{_C}title"), f"{_A}t")))
            self._writer.table(_series(root))
        elif diagram and (root := self._package.xml(diagram.target)) is not None:
            for number, words in enumerate(self._words(point) for point in root.iter(f"{root.tag[:-9]}t")):
                self._writer.block(f"- {words}" if words else "", tight=number > 0)

    def _notes(self) -> None:
        for known in self._known.values():
            if known.kind == "notesSlide" and (root := self._package.xml(known.target)) is not None:
                bodies = [shape for shape in _shapes(root) if _placeholder(shape) == "body"]
                words = " ".join(map(self._words, bodies))
                self._writer.block(f"Notes: {words}" if words.strip() else "")


def _shapes(root: Element) -> Iterator[Element]:
    """Shapes, pictures and frames of a slide, those in groups in their place."""
    tree = root.find(f"{_P}cSld/{_P}spTree")
    waiting = list(reversed(tree)) if tree is not None else []
    while waiting:
        shape = waiting.pop()
        if shape.tag == f"{_P}grpSp":
            waiting += reversed(shape)
        elif shape.tag in {f"{_P}sp", f"{_P}pic", f"{_P}graphicFrame"}:
            yield shape


def _placeholder(shape: Element) -> str | None:
    """What the shape holds the place of; empty for any content, None where it is no placeholder."""
    found = shape.find(f"*/{_P}nvPr/{_P}ph")
    return None if found is None else found.get("type", "")


def _texts(root: Element | None, tag: str) -> list[str]:
    return [element.text or "" for element in root.iter(tag)] if root is not None else []


def _series(root: Element) -> list[list[str]]:
    """A chart's cached values: a row for each category, a column for each series."""
    series = list(root.iter(f"{_C}ser"))
    if not series:
        return []
    names = [" ".join(_texts(each.find(f"{_C}tx"), f"{_C}v")) for each in series]
    categories = _texts(series[0].find(f"{_C}cat"), f"{_C}v")
    values = [_texts(each.find(f"{_C}val"), f"{_C}v") for each in series]
    rows = [
        [category, *(column[row] if row < len(column) else "" for column in values)]
        for row, category in enumerate(categories)
    ]
    return [["", *names], *rows]
