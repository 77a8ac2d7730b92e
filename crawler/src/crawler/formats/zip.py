"""Zip archives: their members become documents of their own, and the archive's own text lists them."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ByteSize, Field

from crawler.contracts import Attachment, Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.filenames import clean_name, some
from crawler.formats import _containers
from crawler.formats._markdown import as_markdown
from crawler.settings import Settings

_MAX_LISTED = 5_000
_EMPTY = b"PK\x05\x06"
"""What an archive without members begins with."""
_LEFT_OUT = {".DS_Store", "Thumbs.db", "desktop.ini"}
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Of others, the standard library unpacks each piece whole, however large it becomes."""
_HEADER_BYTES = 30
"""Of a member, at least (APPNOTE 4.3.7)."""
_ENCRYPTED = 0x1
_UTF8 = 0x800
"""Flags of a member (APPNOTE 4.4.4)."""


class ZipSettings(Settings):
    """How much of an archive is unpacked; what is over a limit is named in a warning."""

    max_members: int = Field(default=1_000, ge=1)
    """Files that become documents; folders do not count."""
    max_member_bytes: ByteSize = Field(default=ByteSize(100 * 2**20), ge=1)
    """Of one file, unpacked."""
    max_total_bytes: ByteSize = Field(default=ByteSize(256 * 2**20), ge=1)
    """Of all files together, unpacked."""


@dataclass
class _Unpacked:
    attachments: list[Attachment] = field(default_factory=list)
    encrypted: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    left: int = 0
    """Files over the limit of members."""


class Zip(Format[ZipSettings]):
    """Archives that are no document themselves: Office files, OpenDocument and EPUB are not for it."""

    def accepts(self, source: Source) -> bool:
        return _containers.accepts(source, {"zip"}, {".zip"}) or source.content.startswith(_EMPTY)

    def convert(self, source: Source) -> Converted:
        """A list of the members, and those that can be read as attachments.

        Raises:
            UnreadableDocument: It is broken, empty, or all of it is encrypted; or its members overlap.
        """
        try:
            archive = zipfile.ZipFile(io.BytesIO(source.content))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, LookupError) as error:
            raise UnreadableDocument(
                "The archive is broken, or was not downloaded to its end. Pack it again and upload that."
            ) from error
        with archive:
            members = [member for member in archive.infolist() if _counts(member)]
            if not members:
                raise UnreadableDocument("The archive is empty. Pack it again and upload that.")
            if _overlap(archive.infolist()):
                raise UnreadableDocument(
                    "The archive is broken: its files lie in each other. Pack it again and upload that."
                )
            unpacked = self._unpack(archive, members)
        if len(unpacked.encrypted) == len(members):
            raise UnreadableDocument(
                "The archive is encrypted. Pack its files without a password and upload that."
            )
        return Converted(
            markdown=_listing(source.filename, members),
            warnings=tuple(_warnings(unpacked, self.settings)),
            attachments=tuple(unpacked.attachments),
        )

    def _unpack(self, archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo]) -> _Unpacked:
        unpacked, total = _Unpacked(), 0
        for member in members:
            name = _name(member)
            if member.flag_bits & _ENCRYPTED:
                unpacked.encrypted.append(name)
            elif stat.S_ISLNK(member.external_attr >> 16):
                unpacked.links.append(name)
            elif len(unpacked.attachments) == self.settings.max_members:
                unpacked.left += 1
            else:
                limit = min(self.settings.max_member_bytes, self.settings.max_total_bytes - total)
                content = _read(archive, member, limit)
                if content is None:
                    unpacked.broken.append(name)
                elif len(content) > limit:
                    unpacked.too_large.append(name)
                elif content:
                    total += len(content)
                    filename = clean_name(name, f"member-{len(unpacked.attachments) + 1}")
                    unpacked.attachments.append(Attachment(filename=filename, content=content))
        return unpacked


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes | None:
    """At most one byte more than ``limit``, whatever sizes the archive claims; None when it is broken."""
    if member.compress_type not in _METHODS:
        return None
    try:
        with archive.open(member) as stream:
            return stream.read(limit + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError):
        return None


def _overlap(members: Sequence[zipfile.ZipInfo]) -> bool:
    """Whether members share bytes: so a small archive unpacks to any size, and again for each member."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            return True
        end = member.header_offset + _HEADER_BYTES + member.compress_size
    return False


def _counts(member: zipfile.ZipInfo) -> bool:
    parts = member.filename.replace("\\", "/").split("/")
    return not (member.is_dir() or parts[0] == "__MACOSX" or parts[-1] in _LEFT_OUT or not parts[-1])


def _name(member: zipfile.ZipInfo) -> str:
    """With its folders. Most programs write UTF-8, also those that do not say so."""
    if member.flag_bits & _UTF8:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename


def _listing(filename: str, members: Sequence[zipfile.ZipInfo]) -> str:
    lines = [f"- {as_markdown(_name(member))}" for member in members[:_MAX_LISTED]]
    if len(members) > _MAX_LISTED:
        lines.append(f"- and {len(members) - _MAX_LISTED} more")
    return f"# {as_markdown(filename)}\n\nFiles in the archive: {len(members)}\n\n" + "\n".join(lines)


def _warnings(unpacked: _Unpacked, settings: ZipSettings) -> list[str]:
    found = [
        ("Encrypted, and so left out", unpacked.encrypted),
        ("Links, and so left out", unpacked.links),
        ("Broken or packed in an unknown way, and so left out", unpacked.broken),
        (
            f"Larger than {settings.max_member_bytes.human_readable()}, or than what was left of "
            f"{settings.max_total_bytes.human_readable()} for the archive, and so left out",
            unpacked.too_large,
        ),
    ]
    warnings = [f"{reason}: {some(names)}." for reason, names in found if names]
    if unpacked.left:
        warnings.append(f"{unpacked.left} files are left out: an archive may have {settings.max_members}.")
    return warnings
