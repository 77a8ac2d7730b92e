"""Zip packages of XML parts, as Office Open XML, OpenDocument and EPUB are; for the child process only."""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from xml.etree.ElementTree import Element

from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats._elements import parse_part

MAX_PART_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 256 * 2**20
MAX_PARTS = 20_000
MAX_DECLARED_BYTES = 2**30
"""What all parts say that they unpack to: whoever unpacks them with another library wants to know before."""
_BROKEN = "The document is damaged or incomplete. Open it in its own program, save it again and upload that."
ENCRYPTED = "The document is encrypted. Remove the password and upload it again."


class Package:
    """The parts of a package by name. What is unpacked is counted: sizes in the file's headers may lie."""

    def __init__(self, content: bytes) -> None:
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise UnreadableDocument(_BROKEN) from error
        self.names = tuple(self._archive.namelist())
        declared = sum(part.file_size for part in self._archive.infolist())
        if len(self.names) > MAX_PARTS or declared > MAX_DECLARED_BYTES:
            raise DocumentTooLarge
        self._known = frozenset(self.names)
        self._unpacked = 0

    def read(self, name: str) -> bytes | None:
        """The bytes of a part; None where there is no such part.

        Raises:
            UnreadableDocument: The part is damaged or encrypted.
            DocumentTooLarge: It unpacks to more than 64 MiB, or all parts read to more than 256 MiB.
        """
        if name not in self._known:
            return None
        try:
            with self._archive.open(name) as stream:
                content = stream.read(MAX_PART_BYTES + 1)
        except RuntimeError as error:  # what zipfile raises for a part with a password
            raise UnreadableDocument(ENCRYPTED) from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise UnreadableDocument(_BROKEN) from error
        self._unpacked += len(content)
        if len(content) > MAX_PART_BYTES or self._unpacked > MAX_TOTAL_BYTES:
            raise DocumentTooLarge
        return content

    def xml(self, name: str) -> Element | None:
        """The root of an XML part; None where there is no such part.

        Raises:
            UnreadableDocument: It is not well-formed, or has a document type.
            DocumentTooLarge: As :meth:`read`, or it has too many elements.
        """
        content = self.read(name)
        try:
            return None if content is None else parse_part(content)
        except UnreadableDocument as error:
            raise UnreadableDocument(_BROKEN) from error


def resolve(part: str, target: str) -> str:
    """The name of the part that ``target``, relative to ``part``, means."""
    if target.startswith("/"):
        return posixpath.normpath(target).lstrip("/")
    return posixpath.normpath(posixpath.join(posixpath.dirname(part), target)).lstrip("/")


def texts(root: Element | None, names: dict[str, str]) -> dict[str, str]:
    """The text of the first element of each name (``{namespace}tag`` -> key), where it has any."""
    found: dict[str, str] = {}
    for element in root.iter() if root is not None else ():
        key = names.get(element.tag)
        if key and key not in found:
            text = " ".join("".join(element.itertext()).split())
            found |= {key: text} if text else {}
    return found
