"""XML of any vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any
from xml.etree.ElementTree import Element

from crawler.contracts import Converted, Format, Source
from crawler.errors import DocumentTooLarge
from crawler.formats._elements import content, parse
from crawler.formats._tables import MAX_CHARACTERS, Table
from crawler.formats._text import is_html, is_text
from crawler.settings import Settings

_SUFFIXES = {
    ".xml",
    ".rss",
    ".atom",
    ".svg",
    ".gpx",
    ".kml",
    ".xsd",
    ".xsl",
    ".xslt",
    ".wsdl",
    ".tmx",
    ".xliff",
}
_OTHERS = {".html", ".htm", ".xhtml"}
_MAX_LEVEL = 6
_SHAPE_NAMES = 50
_NAMING = ("name", "title", "id")
_LONGEST_CELL = 300
_LONGEST_NAME = 80


class Xml(Format[Settings]):
    """Elements with others in them as headings, with their attributes; records of one kind as a table."""

    def accepts(self, source: Source) -> bool:
        if source.suffix in _OTHERS or is_html(source.content) or not is_text(source.content):
            return False
        return source.suffix in _SUFFIXES or _begins_as_xml(source.content)

    def convert(self, source: Source) -> Converted:
        root = parse(source.content)
        parts: list[str] = []
        size = 0
        for part in _section(root, 1):
            parts.append(part)
            size += len(part)
            if size > MAX_CHARACTERS:
                raise DocumentTooLarge
        return Converted(markdown="\n\n".join(parts), metadata={"shape": _shape(root)})


def _begins_as_xml(content: bytes) -> bool:
    start = content[:64]
    for encoding in ("utf-8-sig", "utf-16"):
        if start.decode(encoding, errors="ignore").lstrip().startswith("<?xml "):
            return True
    return False


def _section(element: Element, level: int) -> Iterator[str]:
    """An element with others in it."""
    yield f"{'#' * min(level, _MAX_LEVEL)} {_title(element)}"
    if element.attrib:
        yield "\n".join(f"- **@{name}**: {_line(value)}" for name, value in element.attrib.items())
    yield from _content(element, level)


def _content(element: Element, level: int) -> Iterator[str]:
    if _is_leaf(element) or _is_mixed(element):
        if text := _text(element):
            yield text
        return
    runs = groupby(element, key=lambda child: (child.tag, _is_leaf(child)))
    lines: list[str] = []
    for (_, leaf), run in runs:
        if leaf:
            lines += map(_leaf, run)
            continue
        if lines:
            yield "\n".join(lines)
            lines = []
        yield from _elements_of_a_kind(list(run), level)
    if lines:
        yield "\n".join(lines)


def _elements_of_a_kind(elements: Sequence[Element], level: int) -> Iterator[str]:
    rows = [_record(element) for element in elements] if len(elements) > 1 else [None]
    records = [row for row in rows if row]
    if len(records) < len(elements):
        for element in elements:
            if _is_mixed(element):
                yield _leaf(element).removeprefix("- ")
            else:
                yield from _section(element, level + 1)
        return
    names = list(dict.fromkeys(name for record in records for name in record))
    table = Table(header=names).extend([record.get(name) for name in names] for record in records)
    yield f"{'#' * min(level + 1, _MAX_LEVEL)} {elements[0].tag}"
    yield table.markdown()


def _record(element: Element) -> dict[str, str] | None:
    """A row of short texts: attributes and leaves, each name once."""
    if _is_mixed(element) or len(element) > 64:
        return None
    record = {f"@{name}": value for name, value in element.attrib.items()}
    for child in element:
        if not _is_leaf(child) or child.tag in record or child.attrib:
            return None
        record[child.tag] = _line(_text(child))
    return record if record and max(map(len, record.values())) <= _LONGEST_CELL else None


def _leaf(element: Element) -> str:
    """An element of text alone, in one line with its attributes."""
    attributes = ", ".join(f"@{name}: {_line(value)}" for name, value in element.attrib.items())
    named = f"- **{element.tag}**" + (f" ({attributes})" if attributes else "")
    text = _line(_text(element))
    return f"{named}: {text}" if text else named


def _is_leaf(element: Element) -> bool:
    return not len(element)


def _is_mixed(element: Element) -> bool:
    """Text and elements in turn, as in a paragraph with emphasis."""
    return len(element) > 0 and any(isinstance(part, str) for part in content(element))


def _text(element: Element) -> str:
    """All text in it, in order, with the attributes of what is inside. Depth is bounded by the parser."""
    parts: list[str] = []
    for part in content(element):
        if isinstance(part, str):
            parts.append(part)
            continue
        parts.append(_text(part))
        if part.attrib:
            parts.append(f" ({', '.join(f'{name}: {value}' for name, value in part.attrib.items())})")
    return "".join(parts).strip()


def _title(element: Element) -> str:
    """Its name, and what it is called by an attribute or a child where there is such."""
    children = {child.tag: child for child in reversed(element) if _is_leaf(child)}
    for key in _NAMING:
        value = element.attrib.get(key) or (_text(children[key]) if key in children else "")
        if value and len(value) <= _LONGEST_NAME:
            return f"{element.tag}: {_line(value)}"
    return element.tag


def _line(text: str) -> str:
    return " ".join(text.split())


def _shape(root: Element) -> dict[str, Any]:
    """The root's name, and how many of which elements are in it."""
    counts: dict[str, int] = {}
    for child in root:
        if child.tag in counts or len(counts) < _SHAPE_NAMES:
            counts[child.tag] = counts.get(child.tag, 0) + 1
    return {"type": root.tag, "elements": counts}
