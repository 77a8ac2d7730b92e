"""Plain text, the last resort for every text that no other format reads; only titles are made headings."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.formats._text import decode, is_markup, is_text
from crawler.formats._titles import with_headings
from crawler.settings import Settings

_KINDS = (
    ".avi .bin .class .dll .dmg .exe .iso .jar .mov .mp3 .mp4 .msi .so .wav "
    ".7z .bmp .doc .docx .eml .epub .gif .gz .htm .html .ipynb .jpeg .jpg .json .msg .odp .ods .odt .pdf "
    ".png .ppt .pptx .rtf .tar .tif .tiff .webp .xhtml .xls .xlsx .xml .zip"
)
_NOT_PLAIN = frozenset(_KINDS.split())
"""Kinds of which the plain bytes say little or nothing, even where they are text."""


class Text(Format[Settings]):
    """Plain text of any name, in UTF-8, in UTF-16 or -32 with a byte order mark, or in Windows-1252.
    Section titles of reStructuredText, AsciiDoc and Org are headings.

    It takes any text that is not markup, so it belongs at the end of the list.
    """

    def accepts(self, source: Source) -> bool:
        if not source.content or source.suffix in _NOT_PLAIN:
            return False
        return is_text(source.content) and not is_markup(source.content)

    def convert(self, source: Source) -> Converted:
        text, warnings = decode(source.content)
        return Converted(markdown=with_headings(text, source.suffix), warnings=warnings)
