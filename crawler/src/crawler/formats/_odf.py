"""What OpenDocument texts, presentations and spreadsheets have in common (OASIS ODF 1.3, part 3)."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from crawler.errors import UnreadableDocument
from crawler.formats import _package
from crawler.formats._markdown import Writer, link
from crawler.formats._package import Package

_NAMESPACE = "{urn:oasis:names:tc:opendocument:xmlns:%s:1.0}"
OFFICE, TEXT, TABLE, DRAW, STYLE, META, MANIFEST = (
    _NAMESPACE % name for name in ("office", "text", "table", "drawing", "style", "meta", "manifest")
)
PRESENTATION = _NAMESPACE % "presentation"
_FO = _NAMESPACE % "xsl-fo-compatible"
_SVG = _NAMESPACE % "svg-compatible"
_DC = "{http://purl.org/dc/elements/1.1/}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_PROPERTIES = {
    f"{_DC}title": "title",
    f"{META}initial-creator": "author",
    f"{_DC}subject": "subject",
    f"{_DC}language": "language",
    f"{META}creation-date": "created_at",
    f"{_DC}date": "modified_at",
}
_UNSEEN = {
    f"{TEXT}tracked-changes",
    f"{TEXT}table-of-content",
    f"{TEXT}sequence-decls",
    f"{OFFICE}annotation",
    f"{OFFICE}annotation-end",
    f"{OFFICE}forms",
}
"""Deleted text, comments, and headings over again."""
_SHAPES = {f"{DRAW}{name}" for name in ("custom-shape", "rect", "ellipse", "line", "connector")}
_MAX_COLUMNS = 1_000


def refuse_encrypted(package: Package) -> None:
    """Raise :class:`UnreadableDocument` where the parts are encrypted (ODF 1.3 part 2, 3.4)."""
    manifest = package.read("META-INF/manifest.xml") or b""
    if b"encryption-data" in manifest:
        raise UnreadableDocument(_package.ENCRYPTED)


def properties(package: Package) -> dict[str, Any]:
    """The metadata of the file under the names of :class:`crawler.contracts.Converted`."""
    root = package.xml("meta.xml")
    found: dict[str, Any] = dict(_package.texts(root, _PROPERTIES))
    if root is None:
        return found
    creator = root.find(f".//{_DC}creator")
    if "author" not in found and creator is not None and creator.text:
        found["author"] = " ".join(creator.text.split())
    keywords = [" ".join((each.text or "").split()) for each in root.iter(f"{META}keyword")]
    if any(keywords):
        found["keywords"] = ", ".join(filter(None, keywords))
    statistic = root.find(f".//{META}document-statistic")
    count = statistic.get(f"{META}page-count", "") if statistic is not None else ""
    if count.isdecimal() and 0 < len(count) < 9:
        found["page_count"] = int(count)
    return found


class Body:
    """Writes text, lists, tables, pictures and notes as Markdown, in the document's order."""

    def __init__(self, package: Package, writer: Writer) -> None:
        self._package = package
        self._writer = writer
        content, styles = package.xml("content.xml"), package.xml("styles.xml")
        if content is None:
            raise UnreadableDocument
        self.content = content
        roots = [root for root in (content, styles) if root is not None]
        self._numbered = {key for root in roots for key in _numbered(root)}
        self._breaks = _breaks(roots)
        self._after: list[tuple[Element, int]] = []
        """What is anchored in the paragraph at hand, and the number of each that is a note."""
        self._notes = 0

    def blocks(self, parent: Element) -> None:
        """Write all that is in ``parent``."""
        for element in parent:
            self._block(element)

    def _block(self, element: Element) -> None:
        if element.tag in {f"{TEXT}h", f"{TEXT}p"}:
            self._paragraph(element)
        elif element.tag == f"{TEXT}list":
            self._list(element, element.get(f"{TEXT}style-name", ""), 1)
        elif element.tag == f"{TABLE}table":
            self._writer.table([list(self._cells(row)) for row in _outer(element, {f"{TABLE}table-row"})])
            self._write_after()
        elif element.tag == f"{DRAW}frame":
            self.frame(element)
        elif element.tag == f"{TEXT}soft-page-break":
            self._writer.page()
        elif element.tag not in _UNSEEN:
            self.blocks(element)

    def frame(self, frame: Element) -> None:
        """Write a frame: its table, text or picture; the picture of a table or of text is left out."""
        inside = [child for child in frame if child.tag in {f"{TABLE}table", f"{DRAW}text-box"}]
        for child in inside:
            self._block(child)
        image = frame.find(f"{DRAW}image")
        if inside or image is None:
            return
        name = image.get(_HREF, "").removeprefix("./")
        self._writer.image(
            mimetypes.guess_type(name)[0] or "application/octet-stream", self._package.read(name)
        )
        for tag in (f"{_SVG}desc", f"{_SVG}title"):
            described = " ".join(frame.findtext(tag, "").split())
            if described:
                self._writer.block(described)
                break

    def words(self, parent: Element) -> str:
        """The text of all paragraphs in ``parent``, in one line."""
        paragraphs = _outer(parent, {f"{TEXT}p", f"{TEXT}h"})
        return " ".join(filter(None, (self._line(each) for each in paragraphs)))

    def _paragraph(self, element: Element, prefix: str = "", *, tight: bool = False) -> None:
        if element.get(f"{TEXT}style-name", "") in self._breaks and not self._writer.is_empty:
            self._writer.page()
        text = self._line(element)
        if element.tag == f"{TEXT}h" and text:
            level = element.get(f"{TEXT}outline-level", "1")
            self._writer.heading(int(level) if level.isdecimal() else 1, text)
        elif text:
            self._writer.block(prefix + text, tight=tight)
        self._write_after()

    def _write_after(self) -> None:
        """Frames and notes that are anchored in the paragraph just written."""
        after, self._after = self._after, []
        for element, number in after:
            if element.tag == f"{TEXT}note":
                self._writer.block(f"[^{number}]: {self.words(element)}")
            elif element.tag == f"{TEXT}soft-page-break":
                self._writer.page()
            else:
                self._block(element)

    def _line(self, element: Element) -> str:
        return " ".join("".join(self._inline(element)).split())

    def _inline(self, element: Element) -> Iterator[str]:
        """The text of a paragraph; what is anchored in it is kept for after it."""
        yield element.text or ""
        for child in element:
            if child.tag in {f"{TEXT}s", f"{TEXT}tab", f"{TEXT}line-break"}:
                yield " "
            elif child.tag == f"{TEXT}a":
                yield link("".join(self._inline(child)), child.get(_HREF, ""))
            elif child.tag == f"{TEXT}note":
                self._notes += 1
                self._after.append((child, self._notes))
                yield f"[^{self._notes}]"
            elif child.tag in {f"{DRAW}frame", f"{DRAW}g", f"{TEXT}soft-page-break", *_SHAPES}:
                self._after.append((child, 0))
            elif child.tag not in _UNSEEN:
                yield from self._inline(child)
            yield child.tail or ""

    def _list(self, element: Element, style: str, level: int, *, tight: bool = False) -> None:
        numbered = (style, str(level)) in self._numbered
        indent = "  " * (level - 1)
        for number, item in enumerate(element, start=1):
            mark, first = f"{number}." if numbered else "-", True
            for child in item:
                if child.tag == f"{TEXT}list":
                    self._list(child, child.get(f"{TEXT}style-name", style), level + 1, tight=tight)
                elif child.tag == f"{TEXT}p":
                    self._paragraph(child, f"{indent}{mark} " if first else f"{indent}  ", tight=tight)
                    first = False
                else:
                    self._block(child)
                tight = True

    def _cells(self, row: Element) -> Iterator[str]:
        for cell in row:
            if cell.tag in {f"{TABLE}table-cell", f"{TABLE}covered-table-cell"}:
                text = self.words(cell)
                count = cell.get(f"{TABLE}number-columns-repeated", "1")
                for _ in range(min(int(count), _MAX_COLUMNS) if count.isdecimal() else 1):
                    yield text


def _outer(parent: Element, tags: set[str]) -> Iterator[Element]:
    """The elements of these tags in ``parent`` that are in no other of them, nor in what is not seen."""
    waiting = list(reversed(parent))
    while waiting:
        element = waiting.pop()
        if element.tag in tags:
            yield element
        elif element.tag not in _UNSEEN:
            waiting += reversed(element)


def _numbered(root: Element) -> Iterator[tuple[str, str]]:
    """Name and level of the list styles that count."""
    for style in root.iter(f"{TEXT}list-style"):
        for level in style.iter(f"{TEXT}list-level-style-number"):
            if level.get(f"{STYLE}num-format"):
                yield style.get(f"{STYLE}name", ""), level.get(f"{TEXT}level", "")


def _breaks(roots: list[Element]) -> frozenset[str]:
    """The paragraph styles that begin a page."""
    breaking, parents = set(), {}
    for style in (style for root in roots for style in root.iter(f"{STYLE}style")):
        name = style.get(f"{STYLE}name", "")
        parents[name] = style.get(f"{STYLE}parent-style-name", "")
        inside = style.find(f"{STYLE}paragraph-properties")
        before = inside.get(f"{_FO}break-before") if inside is not None else None
        if before == "page" or style.get(f"{STYLE}master-page-name"):
            breaking.add(name)
    # A style breaks where the one that it is made from does; as deep as anybody makes them.
    for _ in range(8):
        breaking |= {name for name, parent in parents.items() if parent in breaking}
    return frozenset(breaking)
