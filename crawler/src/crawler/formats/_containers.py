"""Which kind of file a zip or compound file is, told from the names inside.

Asked of files from outside in the service itself, before any child process: reads a bounded number of
names, unpacks nothing.
"""

from __future__ import annotations

import struct
from typing import Literal

from crawler.contracts import Source

Kind = Literal[
    "docx", "pptx", "xlsx", "odt", "odp", "ods", "epub", "zip", "doc", "ppt", "xls", "msg", "encrypted"
]

ZIP = b"PK\x03\x04"
COMPOUND_FILE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
MAX_NAMES = 5_000
_MIMETYPES: dict[bytes, Kind] = {
    b"application/epub+zip": "epub",
    b"application/vnd.oasis.opendocument.text": "odt",
    b"application/vnd.oasis.opendocument.presentation": "odp",
    b"application/vnd.oasis.opendocument.spreadsheet": "ods",
}
_FOLDERS: dict[str, Kind] = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
_OPEN_DOCUMENT: dict[str, Kind] = {".odt": "odt", ".odp": "odp", ".ods": "ods"}
_STREAMS: dict[str, Kind] = {
    "EncryptedPackage": "encrypted",  # [MS-OFFCRYPTO] 1.3.3
    "WordDocument": "doc",
    "PowerPoint Document": "ppt",
    "Workbook": "xls",
    "Book": "xls",
    "__properties_version1.0": "msg",
}


def kind(source: Source) -> Kind | None:
    """What the file is; None where it is neither a zip nor a compound file, or is one cut off."""
    if source.content.startswith(ZIP):
        return _kind_of_zip(source)
    if source.content.startswith(COMPOUND_FILE):
        names = _root_names(source.content)
        return next((found for name, found in _STREAMS.items() if name in names), None)
    return None


def accepts(source: Source, kinds: set[Kind], suffixes: set[str]) -> bool:
    """Whether the file is of one of ``kinds``, or one that only its name can tell: encrypted, or cut off."""
    found = kind(source)
    if found in kinds:
        return True
    cut_off = found is None and source.content.startswith((ZIP, COMPOUND_FILE))
    return (found == "encrypted" or cut_off) and source.suffix in suffixes


def _kind_of_zip(source: Source) -> Kind | None:
    names = member_names(source.content)
    if not names:
        return None
    # Both kinds of package begin with an uncompressed member that tells the media type (ODF 1.3 part 2, 3.3;
    # EPUB OCF 3.3, 4.3). Its length is not looked at: the known types do not begin one another.
    if source.content[30:38] == b"mimetype":
        declared = source.content[38:120]
        for mimetype, found in _MIMETYPES.items():
            if declared.startswith(mimetype):
                return found
    if "[Content_Types].xml" in names:
        for name in names:
            for folder, found in _FOLDERS.items():
                if name.startswith(folder):
                    return found
    if "META-INF/manifest.xml" in names and "content.xml" in names:
        return _OPEN_DOCUMENT.get(source.suffix, "zip")
    return "zip"


def member_names(content: bytes) -> tuple[str, ...]:
    """The first 5,000 names in the central directory of a zip (APPNOTE 4.3.12); empty when there is none."""
    end = content.rfind(b"PK\x05\x06", max(0, len(content) - 65_557))
    if end < 0 or end + 22 > len(content):
        return ()
    size, offset = struct.unpack_from("<II", content, end + 12)
    if 0xFFFFFFFF in (size, offset):  # zip64: the directory's end stands before this record
        offset = content.find(b"PK\x01\x02")
    names: list[str] = []
    while len(names) < MAX_NAMES and content[offset : offset + 4] == b"PK\x01\x02":
        if offset + 46 > len(content):
            break
        lengths = struct.unpack_from("<HHH", content, offset + 28)
        name = content[offset + 46 : offset + 46 + lengths[0]]
        names.append(name.decode("utf-8", "replace"))
        offset += 46 + sum(lengths)
    return tuple(names)


def _root_names(content: bytes) -> frozenset[str]:
    """Names of the streams and storages at the top of a compound file ([MS-CFB] 2.6.4)."""
    entries = _entries(content)
    if not entries:
        return frozenset()
    names, seen, waiting = set(), {0}, [int.from_bytes(entries[0][76:80], "little")]
    while waiting:
        number = waiting.pop()
        if number < len(entries) and number not in seen:
            seen.add(number)
            entry = entries[number]
            (length,) = struct.unpack_from("<H", entry, 64)
            names.add(entry[: min(max(length - 2, 0), 62)].decode("utf-16-le", "replace"))
            waiting += struct.unpack_from("<II", entry, 68)  # its siblings: a tree of names
    return frozenset(names)


def _entries(content: bytes) -> list[bytes]:
    """The first 5,000 directory entries, 128 bytes each; fewer where the file is cut off."""
    if len(content) < 512:
        return []
    size = 1 << min(max(struct.unpack_from("<H", content, 30)[0], 9), 12)
    (sector,) = struct.unpack_from("<I", content, 48)
    tables = struct.unpack_from("<109I", content, 76)
    entries: list[bytes] = []
    while len(entries) < MAX_NAMES:
        start = (sector + 1) * size
        entries += [content[at : at + 128] for at in range(start, start + size, 128)]
        index, place = divmod(sector, size // 4)
        where = (tables[index] + 1) * size + 4 * place if index < len(tables) else len(content)
        if len(entries[-1]) < 128 or where + 4 > len(content):
            break
        (sector,) = struct.unpack_from("<I", content, where)
    return [entry for entry in entries if len(entry) == 128]
