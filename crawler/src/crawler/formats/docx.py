"""Word documents (Office Open XML)."""

from __future__ import annotations

from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.formats import _xberg
from crawler.settings import Settings

_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_ZIP = b"PK\x03\x04"
_COMPOUND_FILE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
"""The stream that holds a protected package ([MS-OFFCRYPTO] 1.3.3)."""


class Docx(Format[Settings]):
    """Word documents since 2007, with headings, lists and tables."""

    def accepts(self, source: Source) -> bool:
        if source.content.startswith(_ZIP):
            return b"word/document" in source.content
        return source.suffix == ".docx" and source.content.startswith(_COMPOUND_FILE)

    def convert(self, source: Source) -> Converted:
        if source.content.startswith(_COMPOUND_FILE):
            if _ENCRYPTED in source.content:
                raise UnreadableDocument(
                    "The document is encrypted. Remove the password and upload it again."
                )
            raise UnreadableDocument(
                "The document is in the old Word format. Save it as .docx and upload that."
            )
        document = _xberg.extract(source.content, _MEDIA_TYPE, "document.docx")
        return Converted(
            markdown=_xberg.without_active_links(document.content), metadata=_xberg.properties(document)
        )
