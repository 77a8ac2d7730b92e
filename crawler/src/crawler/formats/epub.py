"""Electronic books (EPUB 2 and 3)."""

from __future__ import annotations

import mimetypes
import posixpath
import re
from typing import Any
from urllib.parse import unquote

from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.formats import _containers, _package, _xberg
from crawler.formats._markdown import Writer
from crawler.formats._package import Package
from crawler.formats._text import decode
from crawler.settings import Settings

_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_OPF = "{http://www.idpf.org/2007/opf}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_PROPERTIES = {
    f"{_DC}title": "title",
    f"{_DC}creator": "author",
    f"{_DC}description": "subject",
    f"{_DC}language": "language",
    f"{_DC}date": "created_at",
}
_PAGES = {"application/xhtml+xml", "text/html"}
_FONTS = (b"http://www.idpf.org/2008/embedding", b"http://ns.adobe.com/pdf/enc#RC")
_LINK = re.compile(r"(!?)\[([^\[\]\n]{0,2000})\]\(<?([^()\[\]<>\s]{0,2000}+)(?:[>\s][^()\n]{0,500}+)?\)")
_ABSOLUTE = re.compile(r"(?:https?|mailto|ftp):", re.I)


class Epub(Format[Settings]):
    """Books: the chapters in reading order, with headings, lists, tables, links to the web and pictures."""

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"epub"}, {".epub"})

    def convert(self, source: Source) -> Converted:
        package = Package(source.content)
        _refuse_protected(package)
        part, chapters, metadata = _contents(package)
        writer = Writer(with_images=source.with_images)
        for name in chapters:
            content = package.read(_package.resolve(part, unquote(name)))
            if content:
                text, _ = decode(content)
                _write(package, _package.resolve(part, unquote(name)), text, writer)
        return writer.converted(metadata)


def _refuse_protected(package: Package) -> None:
    """Where anything but fonts is encrypted, it is copy protection (EPUB OCF 3.3, 4.2.6.3.2)."""
    encryption = package.read("META-INF/encryption.xml") or b""
    methods = re.findall(rb"EncryptionMethod[^>]*Algorithm\s*=\s*[\"']([^\"']*)", encryption)
    if any(method not in _FONTS for method in methods):
        raise UnreadableDocument("The book is copy-protected. Upload a copy without protection.")


def _contents(package: Package) -> tuple[str, list[str], dict[str, Any]]:
    """Name of the package document, addresses of the chapters relative to it, and the book's properties."""
    container = package.xml("META-INF/container.xml")
    rootfile = container.find(f".//{_CONTAINER}rootfile") if container is not None else None
    part = rootfile.get("full-path", "") if rootfile is not None else ""
    root = package.xml(part)
    if root is None:
        raise UnreadableDocument
    items = {
        item.get("id", ""): item.get("href", "")
        for item in root.iter(f"{_OPF}item")
        if item.get("media-type") in _PAGES
    }
    spine = [items.get(reference.get("idref", "")) for reference in root.iter(f"{_OPF}itemref")]
    metadata: dict[str, Any] = dict(_package.texts(root, _PROPERTIES))
    subjects = [" ".join((each.text or "").split()) for each in root.iter(f"{_DC}subject")]
    if any(subjects):
        metadata["keywords"] = ", ".join(filter(None, subjects))
    for meta in root.iter(f"{_OPF}meta"):
        if meta.get("property") == "dcterms:modified" and meta.text:
            metadata["modified_at"] = meta.text.strip()
    return part, list(dict.fromkeys(name for name in spine if name)), metadata


def _write(package: Package, chapter: str, text: str, writer: Writer) -> None:
    """A chapter; links inside the book lead nowhere from here, its pictures are taken from it."""
    pictures: list[tuple[int, str]] = []
    parts: list[str] = []
    markdown = _xberg.html_to_markdown(text).strip()
    done = length = 0
    for match in _LINK.finditer(markdown):
        if _ABSOLUTE.match(match[3]) and not match[1]:
            continue
        parts += [markdown[done : match.start()], match[2]]
        length += len(parts[-2])
        if match[1]:
            pictures.append((length, _package.resolve(chapter, unquote(match[3]))))
        length += len(parts[-1])
        done = match.end()
    start = writer.block("".join([*parts, markdown[done:]]))
    for offset, name in pictures:
        media_type = mimetypes.guess_type(posixpath.basename(name))[0] or "application/octet-stream"
        writer.image(media_type, package.read(name), start + offset)
