"""What Office Open XML documents have in common (ECMA-376)."""

from __future__ import annotations

from typing import Any, NamedTuple

from crawler.contracts import Source
from crawler.errors import UnreadableDocument
from crawler.formats import _containers, _package
from crawler.formats._package import Package

_CORE = "{http://schemas.openxmlformats.org/package/2006/metadata/core-properties}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_TERMS = "{http://purl.org/dc/terms/}"
_CORE_PROPERTIES = {
    f"{_DC}title": "title",
    f"{_DC}creator": "author",
    f"{_DC}subject": "subject",
    f"{_CORE}keywords": "keywords",
    f"{_DC}language": "language",
    f"{_TERMS}created": "created_at",
    f"{_TERMS}modified": "modified_at",
}
_EXTENDED = "{http://schemas.openxmlformats.org/officeDocument/2006/extended-properties}"
_EXTENDED_PROPERTIES = {f"{_EXTENDED}Pages": "pages", f"{_EXTENDED}Slides": "slides"}
_PACKAGE_RELATIONSHIP = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"
_OLD = {
    "doc": "The document is in the old Word format. Save it as .docx and upload that.",
    "ppt": "The presentation is in the old PowerPoint format. Save it as .pptx and upload that.",
}


class Relationship(NamedTuple):
    kind: str
    """The last word of its type: ``slide``, ``hyperlink``, ``image``, ..."""
    target: str
    """Name of a part, or an address where it is external."""
    external: bool


def package(source: Source) -> Package:
    """The package.

    Raises:
        UnreadableDocument: It is encrypted, in the old binary format, or damaged.
        DocumentTooLarge: It has more parts than any document needs, or unpacks to too much.
    """
    found = _containers.kind(source)
    if found == "encrypted":
        raise UnreadableDocument(_package.ENCRYPTED)
    if found in _OLD:
        raise UnreadableDocument(_OLD[found])
    return Package(source.content)


def properties(package: Package) -> dict[str, Any]:
    """Core properties (ECMA-376 part 2, 11) under the names of :class:`crawler.contracts.Converted`."""
    return dict(_package.texts(package.xml("docProps/core.xml"), _CORE_PROPERTIES))


def extended(package: Package, key: str) -> int | None:
    """``pages`` or ``slides`` as the program that saved it counted them; None where it does not say."""
    value = _package.texts(package.xml("docProps/app.xml"), _EXTENDED_PROPERTIES).get(key, "")
    return int(value) if value.isdecimal() and len(value) < 9 else None


def relationships(package: Package, part: str) -> dict[str, Relationship]:
    """The relationships of a part by their id (ECMA-376 part 2, 9.3)."""
    folder, _, name = part.rpartition("/")
    root = package.xml(f"{folder}/_rels/{name}.rels")
    found = {}
    for element in root.iter(_PACKAGE_RELATIONSHIP) if root is not None else ():
        target = element.get("Target", "")
        external = element.get("TargetMode") == "External"
        found[element.get("Id", "")] = Relationship(
            element.get("Type", "").rpartition("/")[2],
            target if external else _package.resolve(part, target),
            external,
        )
    return found
