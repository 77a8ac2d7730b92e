"""Mails as Outlook saves them ([MS-OXMSG], a compound file of properties)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from crawler import images
from crawler.contracts import Attachment, Converted, Format, Image, Source
from crawler.errors import UnreadableDocument
from crawler.filenames import clean_name
from crawler.formats import _containers
from crawler.formats._compressed_rtf import decompress
from crawler.formats._mail import Mail, clean_media_type
from crawler.settings import Settings

if TYPE_CHECKING:
    from olefile import OleFileIO  # type: ignore[import-untyped]

_BROKEN = "The mail is broken, or was not downloaded to its end. Save it again in Outlook and upload that."
_UNICODE, _ANSI, _BINARY, _OBJECT = 0x001F, 0x001E, 0x0102, 0x000D
"""Types of properties ([MS-OXCDATA] 2.11.1)."""
_SUBJECT, _BODY, _HTML, _RTF = 0x0037, 0x1000, 0x1013, 0x1009
_SENDER, _SENDER_SMTP, _SENDER_ADDRESS, _TO, _CC = 0x0C1A, 0x5D01, 0x0C1F, 0x0E04, 0x0E03
_SUBMITTED, _DELIVERED, _CODE_PAGE = 0x0039, 0x0E06, 0x3FFD
_DATA, _LONG_NAME, _NAME, _DISPLAY_NAME, _MIME, _CONTENT_ID = 0x3701, 0x3707, 0x3704, 0x3001, 0x370E, 0x3712
"""Properties of mails and of attachments ([MS-OXPROPS])."""
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_MAX_DEPTH = 3
"""Mails in mails; deeper ones are left out."""


class Msg(Format[Settings]):
    """Outlook's mails: headers and text; attachments and mails inside become documents of their own."""

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"msg"}, {".msg"})

    def convert(self, source: Source) -> Converted:
        """The mail's plain text, or its HTML or RTF where it has no other.

        Raises:
            UnreadableDocument: It is broken or empty.
        """
        from olefile import OleFileIO

        try:
            with OleFileIO(io.BytesIO(source.content)) as file:
                mail = _Storage(file, ()).mail()
        except (OSError, ValueError, struct.error, IndexError, RecursionError) as error:
            raise UnreadableDocument(_BROKEN) from error
        return mail.converted()


class _Storage:
    """A mail or an attachment: a folder of the compound file, one stream for each property."""

    def __init__(self, file: OleFileIO, path: tuple[str, ...]) -> None:
        self.file, self.path = file, path
        self.fixed = dict(self._fixed())

    def mail(self, depth: int = 1) -> Mail:
        address = self.text(_SENDER_SMTP) or self.text(_SENDER_ADDRESS)
        name = self.text(_SENDER)
        mail = Mail(
            subject=self.text(_SUBJECT),
            sender=f"{name} <{address}>" if "@" in address and address != name else name or address,
            to=self.text(_TO),
            cc=self.text(_CC),
            date=self._date(_SUBMITTED) or self._date(_DELIVERED),
        )
        self._read_text(mail)
        for number, folder in enumerate(self._attachments(), start=1):
            _Storage(self.file, (*self.path, folder)).attach_to(mail, number, depth)
        return mail

    def attach_to(self, mail: Mail, number: int, depth: int) -> None:
        """What this attachment holds, put into ``mail``."""
        name = self.text(_LONG_NAME) or self.text(_NAME) or self.text(_DISPLAY_NAME)
        inside = (*self.path, f"__substg1.0_{_DATA:04X}{_OBJECT:04X}")
        if self.file.exists("/".join((*inside, "__properties_version1.0"))):
            if depth == _MAX_DEPTH:
                mail.warnings.append("A mail inside several others is left out.")
                return
            forwarded = _Storage(self.file, inside).mail(depth + 1)
            name = (forwarded.subject or name.removesuffix(".msg") or f"attachment-{number}") + ".eml"
            name = clean_name(name.replace("/", " "), f"attachment-{number}.eml")
            mail.attachments.append(
                Attachment(filename=name, media_type="message/rfc822", content=forwarded.as_eml())
            )
            return
        content = self._stream(_DATA, _BINARY)
        if content is None:
            mail.warnings.append(f"Attachment {number} is a link or another program's object, and left out.")
            return
        kind = images.media_type(content)
        if kind and self.text(_CONTENT_ID):
            mail.images.append(Image(offset=0, media_type=kind, content=content))
        elif content:
            mail.attachments.append(
                Attachment(
                    filename=clean_name(name, f"attachment-{number}"),
                    media_type=clean_media_type(self.text(_MIME)),
                    content=content,
                )
            )

    def text(self, number: int) -> str:
        """A property of text; empty where there is none."""
        content = self._stream(number, _UNICODE)
        if content is not None:
            return content.decode("utf-16-le", "replace").rstrip("\0")
        content = self._stream(number, _ANSI)
        return self._decode(content).rstrip("\0") if content else ""

    def _read_text(self, mail: Mail) -> None:
        plain = self.text(_BODY)
        html = self._stream(_HTML, _BINARY)
        rtf = self._stream(_RTF, _BINARY)
        if plain.strip():
            mail.texts.append(("plain", plain))
        elif html:
            mail.texts.append(("html", self._decode(html)))
        elif rtf:
            mail.texts.append(("rtf", decompress(rtf).decode("latin-1")))

    def _decode(self, content: bytes) -> str:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            page = self.fixed.get(_CODE_PAGE, b"\0" * 8)
            try:
                return content.decode(f"cp{int.from_bytes(page[:4], 'little')}", "replace")
            except LookupError:
                return content.decode("cp1252", "replace")

    def _date(self, number: int) -> datetime | None:
        """Tenths of microseconds since 1601."""
        value = int.from_bytes(self.fixed.get(number, b""), "little")
        try:
            return _EPOCH + timedelta(microseconds=value // 10) if value else None
        except OverflowError:
            return None

    def _fixed(self) -> Iterator[tuple[int, bytes]]:
        """The properties of fixed size ([MS-OXMSG] 2.4): number and 8 bytes of value."""
        content = self._open("__properties_version1.0") or b""
        header = 32 if not self.path else 8 if self.path[-1].startswith("__attach") else 24
        for start in range(header, len(content) - 15, 16):
            (tag,) = struct.unpack_from("<I", content, start)
            yield tag >> 16, content[start + 8 : start + 16]

    def _attachments(self) -> list[str]:
        names = {
            entry[len(self.path)]
            for entry in self.file.listdir(streams=True, storages=False)
            if tuple(entry[: len(self.path)]) == self.path and len(entry) > len(self.path) + 1
        }
        return sorted(name for name in names if name.startswith("__attach_version1.0_"))

    def _stream(self, number: int, kind: int) -> bytes | None:
        return self._open(f"__substg1.0_{number:04X}{kind:04X}")

    def _open(self, name: str) -> bytes | None:
        path = "/".join((*self.path, name))
        if not self.file.exists(path) or self.file.get_type(path) != 2:  # a stream
            return None
        content: bytes = self.file.openstream(path).read()
        return content
