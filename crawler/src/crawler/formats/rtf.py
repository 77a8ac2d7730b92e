"""Rich Text Format."""

from __future__ import annotations

import re

from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.formats import _xberg
from crawler.settings import Settings

_BEGINNING = b"{\\rtf"
_KEYWORDS = re.compile(rb"\{\\keywords ([^{}\\]{1,1000})\}")
_EMPHASIS_IN_LINK = re.compile(r"\[(__|\*\*|\*|_)([^\[\]\n]{0,2000})\1\]\(")
"""Links are underlined in their style, which is no emphasis."""


class Rtf(Format[Settings]):
    """Rich text of WordPad, Word and others: headings, lists, tables and links."""

    def accepts(self, source: Source) -> bool:
        return source.content.startswith(_BEGINNING)

    def convert(self, source: Source) -> Converted:
        if not source.content.rstrip(b"\0\r\n\t ").endswith(b"}"):
            raise UnreadableDocument("The document is incomplete. Download it again and upload that.")
        document = _xberg.extract(source.content, "application/rtf", "document.rtf")
        converted = _xberg.converted(document, with_images=source.with_images)
        keywords = _KEYWORDS.search(source.content[:65_536])
        if keywords:
            converted.metadata.setdefault("keywords", keywords[1].decode("cp1252", "replace").strip())
        markdown = _EMPHASIS_IN_LINK.sub(r"[\2](", converted.markdown)
        # xberg puts all pictures at the end.
        images = tuple(image.model_copy(update={"offset": len(markdown)}) for image in converted.images)
        return converted.model_copy(update={"markdown": markdown, "images": images})
