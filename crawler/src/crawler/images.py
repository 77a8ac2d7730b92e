"""What kind of picture some bytes are, and how large, told from their first bytes; nothing is decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PNG, JPEG, GIF, BMP, TIFF, WEBP = (f"image/{kind}" for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp"))

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
)
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}
_MAX_PAGES = 1_000
_WIDTH, _HEIGHT = 256, 257
"""Tags of a TIFF's page (TIFF 6.0, section 3)."""
_SHORT = 3
"""Type of a value of two bytes (TIFF 6.0, section 2)."""


def media_type(content: bytes) -> str | None:
    """``image/png``, ``image/jpeg``, ``image/gif``, ``image/bmp``, ``image/tiff``, ``image/webp`` or None."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WEBP
    if content[:2] == b"BM" and int.from_bytes(content[14:18], "little") in _BMP_HEADERS:
        return BMP
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), None)


def pixels(content: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as the header says them; None where it says nothing that can be read."""
    try:
        return _pixels(content, media_type(content))
    except (struct.error, IndexError):
        return None


def _pixels(content: bytes, kind: str | None) -> tuple[int, int] | None:
    match kind:
        case "image/png":
            width, height = struct.unpack_from(">II", content, 16)
        case "image/gif":
            width, height = struct.unpack_from("<HH", content, 6)
        case "image/bmp":
            old = content[14] == 12
            width, height = struct.unpack_from("<HH" if old else "<ii", content, 18)
        case "image/jpeg":
            return _jpeg(content)
        case "image/webp":
            return _webp(content)
        case "image/tiff":
            return _tiff(content)
        case _:
            return None
    return abs(width), abs(height)


_MAX_SEGMENTS = 10_000
"""A picture with more before its frame, or more fill, is none that a camera or a program made."""


def _jpeg(content: bytes) -> tuple[int, int] | None:
    """From the frame header (ITU-T T.81, B.2.2), found by walking over the segments before it."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        if content[position] != 0xFF:
            return None
        marker = content[position + 1]
        if marker == 0xFF:  # fill
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", content, position + 5)
            return width, height
        else:
            position += 2 + int(struct.unpack_from(">H", content, position + 2)[0])
    return None


def _webp(content: bytes) -> tuple[int, int] | None:
    """From the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    chunk = content[12:16]
    if chunk == b"VP8X":
        return (
            1 + int.from_bytes(content[24:27], "little"),
            1 + int.from_bytes(content[27:30], "little"),
        )
    if chunk == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def tiff_frames(content: bytes) -> Iterator[bytes]:
    """The pages of a TIFF, each as a TIFF that begins with it; at most 1,000."""
    order = _order(content)
    for offset in _directories(content):
        yield content[:4] + struct.pack(f"{order}I", offset) + content[8:]


def _order(content: bytes) -> str:
    return "<" if content[:2] == b"II" else ">"


def _directories(content: bytes) -> list[int]:
    """Where the pages are described (TIFF 6.0, section 2, image file directories), each at most once."""
    order = _order(content)
    offsets: list[int] = []
    try:
        (offset,) = struct.unpack_from(f"{order}I", content, 4)
        while offset and offset not in offsets and len(offsets) < _MAX_PAGES:
            (entries,) = struct.unpack_from(f"{order}H", content, offset)
            offsets.append(offset)
            (offset,) = struct.unpack_from(f"{order}I", content, offset + 2 + 12 * entries)
    except struct.error:
        pass  # what comes before the damage can be read
    return offsets


def _tiff(content: bytes) -> tuple[int, int] | None:
    """Of the first page."""
    order = _order(content)
    (directory,) = struct.unpack_from(f"{order}I", content, 4)
    (entries,) = struct.unpack_from(f"{order}H", content, directory)
    found = {}
    for index in range(entries):
        tag, kind = struct.unpack_from(f"{order}HH", content, directory + 2 + 12 * index)
        form = "H" if kind == _SHORT else "I"
        (found[tag],) = struct.unpack_from(f"{order}{form}", content, directory + 10 + 12 * index)
    return (found[_WIDTH], found[_HEIGHT]) if _WIDTH in found and _HEIGHT in found else None
