"""Web pages."""

from __future__ import annotations

import html
import re

from crawler.contracts import Converted, Format, Source
from crawler.formats import _xberg
from crawler.formats._text import decode, is_text
from crawler.settings import Settings

_BEGINNING = re.compile(rb"<(?:!doctype\s+html|html)[\s>]", re.I)
_META = re.compile(r"<meta\s([^<>]{1,2000})>", re.I)
_ATTRIBUTE = re.compile(r"\b(name|property|content)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.I)
_PROPERTIES = {
    "author": "author",
    "description": "subject",
    "keywords": "keywords",
    "dcterms.created": "created_at",
    "article:published_time": "created_at",
    "dcterms.modified": "modified_at",
    "article:modified_time": "modified_at",
}
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.I)
_LANGUAGE = re.compile(r"<html[^>]*?\slang\s*=\s*[\"']?([a-z]{2,3})\b", re.I)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]+)", re.I)


class Html(Format[Settings]):
    """Web pages: headings, lists, tables and links are kept; scripts, styles and navigation are not."""

    def accepts(self, source: Source) -> bool:
        if _BEGINNING.match(_without_prologue(source.content[:4096])):
            return True
        return source.suffix in {".html", ".htm", ".xhtml"} and is_text(source.content)

    def convert(self, source: Source) -> Converted:
        text, warnings = _decode(source.content)
        # Without a `<head>` around it, which HTML lets one leave out, xberg takes the title for text.
        markdown = _xberg.html_to_markdown(_TITLE.sub("<title>", text, count=1))
        return Converted(markdown=markdown, metadata=_head(text[:65536]), warnings=warnings)


def _without_prologue(content: bytes) -> bytes:
    """What follows the byte order mark, XML declaration and comments. No regex: these nest badly in one."""
    content = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    for opening, closing in ((b"<?xml", b"?>"), (b"<!--", b"-->")):
        while content.startswith(opening) and closing in content:
            content = content.partition(closing)[2].lstrip()
    return content


def _head(text: str) -> dict[str, str]:
    """What the page says of itself. xberg writes it, and more, into the Markdown or leaves it out."""
    found = {"title": _TITLE.search(text), "language": _LANGUAGE.search(text)}
    values = {key: _plain(match[1]) for key, match in found.items() if match}
    for meta in _META.finditer(text):
        given = {name.lower(): double or single for name, double, single in _ATTRIBUTE.findall(meta[1])}
        key = _PROPERTIES.get((given.get("name") or given.get("property") or "").lower())
        if key:
            values.setdefault(key, _plain(given.get("content", "")))
    return {key: value for key, value in values.items() if value}


def _plain(text: str) -> str:
    return " ".join(html.unescape(text).split())


def _decode(content: bytes) -> tuple[str, tuple[str, ...]]:
    """The page in the encoding that it declares in its first 1,024 bytes (HTML standard, 13.2.3.2)."""
    declared = _CHARSET.search(content[:1024])
    if declared:
        try:
            return content.decode(declared[1].decode("ascii")), ()
        except (LookupError, UnicodeDecodeError, ValueError):
            pass
    return decode(content)
