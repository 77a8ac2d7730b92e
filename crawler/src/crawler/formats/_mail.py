"""A mail, whatever it was kept in, as Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import Header
from email.message import EmailMessage
from typing import Any, Literal

from crawler.contracts import Attachment, Converted, Image
from crawler.errors import UnreadableDocument
from crawler.filenames import printable, some
from crawler.formats import _xberg
from crawler.formats._markdown import as_markdown

UNKNOWN = "application/octet-stream"
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}", re.ASCII)
_MAX_HEADER = 512
"""Characters of a header that is kept as a property."""


Kind = Literal["plain", "html", "rtf"]
"""Of a text. RTF is bytes, each as the character of its number."""


@dataclass
class Mail:
    """What is kept of a mail; texts are as they came."""

    subject: str = ""
    sender: str = ""
    to: str = ""
    cc: str = ""
    date: datetime | None = None
    texts: list[tuple[Kind, str]] = field(default_factory=list)
    """One after the other."""
    attachments: list[Attachment] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    """Pictures inside the text, such as logos."""
    warnings: list[str] = field(default_factory=list)

    def converted(self) -> Converted:
        """Headers as a list, then the text.

        Raises:
            UnreadableDocument: The mail holds nothing.
        """
        body = "\n\n".join(filter(None, (self._markdown(kind, text) for kind, text in self.texts)))
        if not (body or self.subject.strip() or self.attachments):
            raise UnreadableDocument("The mail is empty or damaged. Save it again and upload that.")
        files = some([attachment.filename for attachment in self.attachments])
        day = self.date.astimezone(UTC) if self.date else None
        headers = {
            "From": self.sender,
            "To": self.to,
            "Cc": self.cc,
            "Date": day.strftime("%Y-%m-%d %H:%M UTC") if day else "",
            "Attachments": files,
        }
        lines = [f"- {name}: {as_markdown(value)}" for name, value in headers.items() if value.strip()]
        heading = f"# {as_markdown(self.subject)}" if self.subject.strip() else ""
        markdown = "\n\n".join(filter(None, (heading, "\n".join(lines), body)))
        return Converted(
            markdown=markdown,
            metadata=self._properties(day),
            warnings=tuple(dict.fromkeys(self.warnings)),
            attachments=tuple(self.attachments),
            images=tuple(image.model_copy(update={"offset": len(markdown)}) for image in self.images),
        )

    def _markdown(self, kind: Kind, text: str) -> str:
        if kind == "plain":
            lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
            return _xberg.active_links_as_text(lines.strip())
        try:
            if kind == "html":
                return _xberg.html_to_markdown(text).strip()
            document = _xberg.extract(text.encode("latin-1"), "application/rtf", "mail.rtf")
            return _xberg.active_links_as_text(document.content).strip()
        except UnreadableDocument:
            self.warnings.append("A part of the mail could not be read.")
            return ""

    def _properties(self, day: datetime | None) -> dict[str, Any]:
        found = {
            "title": self.subject,
            "author": self.sender,
            "created_at": day.isoformat(timespec="seconds") if day else "",
            "from": self.sender,
            "to": self.to,
            "cc": self.cc,
        }
        return {key: printable(value)[:_MAX_HEADER] for key, value in found.items() if value.strip()}

    def as_eml(self) -> bytes:
        """The mail as a file of its own (RFC 5322)."""
        message = EmailMessage()
        headers = {"Subject": self.subject, "From": self.sender, "To": self.to, "Cc": self.cc}
        for name, value in headers.items():
            if value.strip():
                _set_header(message, name, printable(value))
        if self.date:
            message["Date"] = self.date
        for kind, text in self.texts[:1]:
            if kind == "rtf":
                kind, text = "plain", self._markdown(kind, text)
            message.set_content(text, subtype=kind)
        for file in self.attachments:
            if file.media_type == "message/rfc822":
                message.add_attachment(message_from_bytes(file.content, policy=policy.default))
                continue
            main, _, sub = (file.media_type or UNKNOWN).partition("/")
            message.add_attachment(file.content, maintype=main, subtype=sub, filename=file.filename)
        return message.as_bytes()


def _set_header(message: EmailMessage, name: str, value: str) -> None:
    try:
        message[name] = value
        message.as_bytes()
    except Exception:  # noqa: BLE001  the standard library raises anything for what is no address
        del message[name]
        message[name] = Header(value, "utf-8", maxlinelen=0).encode()


def clean_media_type(given: str) -> str:
    """The media type (RFC 6838, 4.2), or that of unknown bytes."""
    return given.lower() if _MEDIA_TYPE.fullmatch(given) else UNKNOWN
