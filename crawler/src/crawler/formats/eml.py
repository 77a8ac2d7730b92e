"""Mails as programs save them (RFC 5322 with MIME)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime

from crawler import images
from crawler.contracts import Attachment, Converted, Format, Image, Source
from crawler.errors import UnreadableDocument
from crawler.filenames import clean_name, printable
from crawler.formats._mail import Mail
from crawler.formats._text import decode, is_text
from crawler.settings import Settings

_BEGINNING = re.compile(
    rb"(?:From [^\n]{1,500}\n)?[!-9;-~]{1,100}:[ \t]?[^\n]*\r?\n(?:[!-9;-~]{1,100}:|[ \t\r\n])"
)
"""A header and what may follow it; the line before is that of the mbox format (RFC 4155)."""
_SIGNATURES = {"application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature"}
_ENCRYPTED = {"application/pkcs7-mime", "application/x-pkcs7-mime", "multipart/encrypted"}
_TEXTS = {"text/plain", "text/html"}
_EXTENSIONS = {"text/calendar": ".ics", "text/html": ".html", "text/plain": ".txt"}


class Eml(Format[Settings]):
    """Mails: headers and text; attachments and forwarded mails become documents of their own."""

    def accepts(self, source: Source) -> bool:
        named = source.suffix == ".eml" or source.media_type == "message/rfc822"
        return named and _BEGINNING.match(source.content.lstrip()[:4096]) is not None

    def convert(self, source: Source) -> Converted:
        """The mail's plain text, or its HTML where it has no other.

        Raises:
            UnreadableDocument: It is empty or encrypted.
        """
        message = message_from_bytes(source.content.lstrip(), policy=policy.default)
        assert isinstance(message, EmailMessage)  # noqa: S101  for the type checker: the policy makes these
        reader = _Reader()
        reader.read(message)
        mail = reader.mail
        if reader.encrypted and not mail.texts:
            raise UnreadableDocument(
                "The mail is encrypted, or signed so that only mail programs open it. Open it in yours, save "
                "it without that and upload it."
            )
        mail.subject, mail.sender = _header(message, "subject"), _header(message, "from")
        mail.to, mail.cc = _header(message, "to"), _header(message, "cc")
        mail.date = _date(message)
        return mail.converted()


class _Reader:
    """Collects the parts of a mail. Of alternatives, the plain text is read (RFC 2046, 5.1.4)."""

    def __init__(self) -> None:
        self.mail = Mail()
        self.encrypted = False

    def read(self, part: EmailMessage, *, texts: bool = True) -> None:
        """Take what ``part`` holds; without ``texts``, only its files."""
        kind = part.get_content_type()
        self.encrypted = self.encrypted or kind in _ENCRYPTED
        if kind in _SIGNATURES:
            return
        if kind == "message/rfc822":
            self._attach(part, _forwarded(part))
        elif part.is_multipart():
            children: list[EmailMessage] = part.get_payload()  # type: ignore[assignment]
            chosen = _best(children) if kind == "multipart/alternative" else None
            for child in children:
                self.read(child, texts=texts and chosen in (None, child))
        elif part.get_content_maintype() == "multipart" or (kind in _TEXTS and not _is_file(part)):
            if texts:
                self._text(part, kind)
        else:
            self._attach(part, _payload(part))

    def _text(self, part: EmailMessage, kind: str) -> None:
        text, warnings = _text(part)
        if text.strip():
            self.mail.texts.append(("html" if kind == "text/html" else "plain", text))
        self.mail.warnings += warnings

    def _attach(self, part: EmailMessage, content: bytes) -> None:
        picture = images.media_type(content)
        if picture and part["content-id"] and part.get_content_disposition() != "attachment":
            self.mail.images.append(Image(offset=0, media_type=picture, content=content))
            return
        kind = part.get_content_type()
        name = _filename(part)
        if kind == "message/rfc822":
            name = (name.removesuffix(".eml") or _subject_inside(part).replace("/", " ") or "mail") + ".eml"
        fallback = f"attachment-{len(self.mail.attachments) + 1}{_EXTENSIONS.get(kind, '')}"
        if content:
            self.mail.attachments.append(
                Attachment(filename=clean_name(name, fallback), media_type=kind, content=content)
            )


def _best(alternatives: Sequence[EmailMessage]) -> EmailMessage | None:
    """The plain text; where it is empty, the last, which is the richest (RFC 2046, 5.1.4)."""
    for part in alternatives:
        if part.get_content_type() == "text/plain" and _text(part)[0].strip():
            return part
    rich = [
        part
        for part in alternatives
        if part.get_content_type() in _TEXTS or part.get_content_maintype() == "multipart"
    ]
    return rich[-1] if rich else None


def _is_file(part: EmailMessage) -> bool:
    return part.get_content_disposition() == "attachment" or bool(_filename(part))


def _filename(part: EmailMessage) -> str:
    try:
        return part.get_filename() or ""
    except Exception:  # noqa: BLE001  the standard library raises anything on malformed headers
        return ""


def _payload(part: EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _forwarded(part: EmailMessage) -> bytes:
    """The mail inside, as its own file."""
    inside = part.get_payload()
    if not isinstance(inside, list) or not inside or not isinstance(inside[0], EmailMessage):
        return _payload(part)
    # The old policy writes headers as they came; the new one parses them, and fails on malformed ones.
    try:
        return inside[0].as_bytes(policy=policy.compat32)
    except UnicodeError:  # characters that its encoding does not have
        return inside[0].as_string(policy=policy.compat32).encode("utf-8", "replace")


def _subject_inside(part: EmailMessage) -> str:
    inside = part.get_payload()
    message = inside[0] if isinstance(inside, list) and inside else None
    return _header(message, "subject") if isinstance(message, EmailMessage) else ""


def _text(part: EmailMessage) -> tuple[str, tuple[str, ...]]:
    content = _payload(part) or str(part.get_payload() or "").encode("utf-8", "replace")
    try:
        return content.decode(part.get_content_charset("utf-8")), ()
    except (LookupError, ValueError):
        return decode(content) if is_text(content) else (content.decode("cp1252", "replace"), ())


def _header(message: EmailMessage, name: str) -> str:
    try:
        return printable(str(message[name] or ""))
    except Exception:  # noqa: BLE001  the standard library raises anything on malformed headers
        raw = (value for key, value in message.raw_items() if key.lower() == name)
        return printable(str(next(raw, "")))


def _date(message: EmailMessage) -> datetime | None:
    try:
        return parsedate_to_datetime(_header(message, "date")).astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
