"""XML as a tree of elements, read with nothing that a hostile file could use.

Expat fetches nothing by itself. Entities of the file's own (billion laughs, external files) are refused, and
depth and number of elements are bounded.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from xml.parsers import expat

from crawler.errors import DocumentTooLarge, UnreadableDocument

MAX_DEPTH = 200
MAX_ELEMENTS = 2_000_000

_ENTITIES = (
    "The file declares entities of its own, which are not read. Save it without a document type declaration "
    "and upload that."
)


@dataclass(slots=True)
class Element:
    name: str
    """With the prefix that the file gives it."""
    attributes: dict[str, str]
    content: list[Element | str] = field(default_factory=list)
    """Elements and texts in their order; no text is blank, no two follow each other."""

    @property
    def children(self) -> list[Element]:
        return [part for part in self.content if isinstance(part, Element)]


def parse(content: bytes) -> Element:
    """The root of an XML 1.0 document.

    Raises:
        UnreadableDocument: It is not well-formed, or declares entities.
        DocumentTooLarge: It has too many elements.
    """
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.SkippedEntityHandler = builder.skipped
    parser.EntityDeclHandler = _refuse_entity
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last two: of the declared encoding
        line = f" (line {error.lineno})" if isinstance(error, expat.ExpatError) else ""
        raise UnreadableDocument(
            f"The file is not well-formed XML{line}. Correct it and upload it again."
        ) from error
    return builder.root.children[0]


class _Builder:
    def __init__(self) -> None:
        self.root = Element("", {})
        self._open = [self.root]
        self._texts: list[str] = []
        self._elements = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._flush()
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise DocumentTooLarge
        if len(self._open) > MAX_DEPTH:
            raise UnreadableDocument(
                "The file's elements lie too deep in each other. Split it and upload the parts."
            )
        element = Element(name, attributes)
        self._open[-1].content.append(element)
        self._open.append(element)

    def end(self, name: str) -> None:
        self._flush()
        self._open.pop()

    def text(self, text: str) -> None:
        self._texts.append(text)

    def skipped(self, name: str, is_parameter: bool) -> None:
        if not is_parameter:
            self._texts.append(html.unescape(f"&{name};"))

    def _flush(self) -> None:
        text = "".join(self._texts)
        self._texts.clear()
        if text.strip():
            self._open[-1].content.append(text)


def _refuse_entity(*declaration: object) -> None:
    raise UnreadableDocument(_ENTITIES)
