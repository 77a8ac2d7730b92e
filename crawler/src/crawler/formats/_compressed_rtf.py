"""The compressed RTF of Outlook's mails ([MS-OXRTFCP])."""

from __future__ import annotations

import struct

from crawler.errors import DocumentTooLarge

_DICTIONARY = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans "
    rb"SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0" + b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
"""What the 4,096 bytes that are looked back at begin with (2.1.2.1)."""
_SIZE = 4096
_COMPRESSED, _PLAIN = b"LZFu", b"MELA"
_MAX_BYTES = 64 * 2**20


def decompress(content: bytes) -> bytes:
    """The RTF; as far as it goes, where it is cut off.

    Raises:
        ValueError: It is no compressed RTF.
        DocumentTooLarge: It is larger than any mail.
    """
    if len(content) < 16 or content[8:12] not in (_COMPRESSED, _PLAIN):
        raise ValueError("no compressed RTF")
    (size,) = struct.unpack_from("<I", content, 4)
    if size > _MAX_BYTES:
        raise DocumentTooLarge
    if content[8:12] == _PLAIN:
        return content[16 : 16 + size]
    return _decompress(content, size)


def _decompress(content: bytes, size: int) -> bytes:
    window = bytearray(_DICTIONARY.ljust(_SIZE, b"\0"))
    write, position = len(_DICTIONARY), 16
    output = bytearray()
    while len(output) < size and position < len(content):
        control = content[position]
        position += 1
        for bit in range(8):
            if not control >> bit & 1:
                piece = content[position : position + 1]
                position += 1
            elif position + 2 <= len(content):
                (reference,) = struct.unpack_from(">H", content, position)
                position += 2
                offset, length = reference >> 4, (reference & 15) + 2
                if offset == write:  # the end
                    return bytes(output)
                # One by one: a piece may go on into what it has just written.
                piece = b""
                for step in range(length):
                    byte = window[(offset + step) % _SIZE]
                    window[(write + step) % _SIZE] = byte
                    piece += bytes((byte,))
            else:
                return bytes(output)
            for step, byte in enumerate(piece):
                window[(write + step) % _SIZE] = byte
            write = (write + len(piece)) % _SIZE
            output += piece
    return bytes(output)
