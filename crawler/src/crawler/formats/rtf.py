"""Rich Text Format."""

from __future__ import annotations

import re

from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.formats import _xberg
from crawler.settings import Settings

_BEGINNING = b"{\\rtf"
_KEYWORDS = re.compile(rb"\{\\keywords ([^{}\\]{1,1000})\}")
_STYLE = re.compile(rb"\{\\s(\d{1,4})(?=[\\ ])([^{}]{0,2000});\}")
_LEVEL = re.compile(rb"\\outlinelevel([0-8])(?!\d)|\bheading ([1-9])\Z", re.IGNORECASE)
_USE_OF_STYLE = re.compile(rb"\\[\\{}]|\\s(\d{1,4})(?!\d)")
_BINARY = re.compile(rb"\\bin\d")
_LONGEST_STYLESHEET = 2**20
_EMPHASIS_IN_LINK = re.compile(r"\[(__|\*\*|\*|_)([^\[\]\n]{0,2000})\1\]\(")
"""Links are underlined in their style, which is no emphasis."""


class Rtf(Format[Settings]):
    """Rich text of WordPad, Word and others: headings, lists, tables and links."""

    def accepts(self, source: Source) -> bool:
        return source.content.startswith(_BEGINNING)

    def convert(self, source: Source) -> Converted:
        if not source.content.rstrip(b"\0\r\n\t ").endswith(b"}"):
            raise UnreadableDocument("The document is incomplete. Download it again and upload that.")
        document = _xberg.extract(_with_levels(source.content), "application/rtf", "document.rtf")
        converted = _xberg.converted(document, with_images=source.with_images)
        keywords = _KEYWORDS.search(source.content[:65_536])
        if keywords:
            converted.metadata.setdefault("keywords", keywords[1].decode("cp1252", "replace").strip())
        markdown = _EMPHASIS_IN_LINK.sub(r"[\2](", converted.markdown)
        # xberg puts all pictures at the end.
        images = tuple(image.model_copy(update={"offset": len(markdown)}) for image in converted.images)
        return converted.model_copy(update={"markdown": markdown, "images": images})


def _with_levels(content: bytes) -> bytes:
    """The outline level of each style put where the style is used: xberg looks for it nowhere else.

    Of paragraphs in the style ``heading 1``, which has its level by its name, Word writes the level again,
    LibreOffice does not.
    """
    start = content.find(b"{\\stylesheet")
    if start < 0 or _BINARY.search(content):  # of pictures in binary no byte may be touched
        return content
    levels: dict[bytes, bytes] = {}
    for number, style in _STYLE.findall(content[start : start + _LONGEST_STYLESHEET]):
        if level := _LEVEL.search(style):
            levels.setdefault(number, level[1] or b"%d" % (int(level[2]) - 1))

    def with_level(match: re.Match[bytes]) -> bytes:
        level = levels.get(match[1])
        return match[0] if level is None else match[0] + b"\\outlinelevel" + level

    return _USE_OF_STYLE.sub(with_level, content) if levels else content
