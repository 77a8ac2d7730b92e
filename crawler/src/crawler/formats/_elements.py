"""XML as a tree of elements, read with nothing that a hostile file could use.

Expat fetches nothing by itself. Entities of the file's own (billion laughs, external files) are refused, and
depth and number of elements are bounded.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from crawler.errors import DocumentTooLarge, UnreadableDocument

MAX_DEPTH = 200
MAX_ELEMENTS = 2_000_000

_ENTITIES = (
    "The file declares entities of its own, which are not read. Save it without a document type declaration "
    "and upload that."
)


def parse(content: bytes) -> Element:
    """The root of an XML 1.0 document; names have the prefix that the file gives them.

    Raises:
        UnreadableDocument: It is not well-formed, too deep, or declares entities.
        DocumentTooLarge: It has too many elements.
    """
    return _Reader(expat.ParserCreate()).read(content)


def parse_part(content: bytes) -> Element:
    """The root of a part of a package; names are ``{namespace}name``.

    Raises:
        UnreadableDocument: As :func:`parse`, or it has a document type, which no part needs.
        DocumentTooLarge: It has too many elements.
    """
    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartDoctypeDeclHandler = _refuse
    return _Reader(parser).read(content)


def content(element: Element) -> Iterator[Element | str]:
    """The elements and texts in it, in their order, without blank texts."""
    if element.text and not element.text.isspace():
        yield element.text
    for child in element:
        yield child
        if child.tail and not child.tail.isspace():
            yield child.tail


class _Reader:
    def __init__(self, parser: expat.XMLParserType) -> None:
        self._tree = TreeBuilder()
        self._names: dict[str, str] = {}
        self._depth = 0
        self._elements = 0
        self._parser = parser
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._tree.data
        parser.SkippedEntityHandler = self._skipped
        parser.EntityDeclHandler = _refuse
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)

    def read(self, content: bytes) -> Element:
        try:
            self._parser.Parse(content, True)
        except (expat.ExpatError, ValueError, LookupError) as error:  # the last two: of the declared encoding
            line = f" (line {error.lineno})" if isinstance(error, expat.ExpatError) else ""
            raise UnreadableDocument(
                f"The file is not well-formed XML{line}. Correct it and upload it again."
            ) from error
        return self._tree.close()

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        self._depth += 1
        if self._elements > MAX_ELEMENTS:
            raise DocumentTooLarge
        if self._depth > MAX_DEPTH:
            raise UnreadableDocument(
                "The file's elements lie too deep in each other. Split it and upload the parts."
            )
        self._tree.start(self._name(name), {self._name(key): value for key, value in attributes.items()})

    def _end(self, name: str) -> None:
        self._depth -= 1
        self._tree.end(self._name(name))

    def _name(self, name: str) -> str:
        """As ElementTree writes it: Expat says ``namespace}name``."""
        if name not in self._names:
            self._names[name] = f"{{{name}" if "}" in name else name
        return self._names[name]

    def _skipped(self, name: str, is_parameter: bool) -> None:
        if not is_parameter:
            self._tree.data(html.unescape(f"&{name};"))


def _refuse(*declaration: object) -> None:
    raise UnreadableDocument(_ENTITIES)
