"""Kinds and sizes of pictures from their first bytes."""

from __future__ import annotations

import pytest

from crawler.images import media_type, pixels, tiff_frames
from tests.fixtures.formats.make_inside import bmp, tiff
from tests.unit.crawler.samples import real

WHITE = (16, 2, b"\xff" * 4)
LOSSY_WEBP = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + (200).to_bytes(2, "little") + b"\x86\x00"
BIG_ENDIAN_TIFF = (
    b"MM\0*\0\0\0\x08\0\x02" + b"\x01\0\0\x03\0\0\0\x01\0\x10\0\0" + b"\x01\x01\0\x03\0\0\0\x01\0\x02\0\0"
)
EXTENDED_WEBP = b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + b"\xc7\0\0" + b"\x85\0\0"


@pytest.mark.parametrize(
    ("content", "kind", "size"),
    [
        (real("note.png"), "image/png", (875, 583)),
        (real("note.jpg"), "image/jpeg", (875, 583)),
        (real("note.gif"), "image/gif", (875, 583)),
        (real("note.webp"), "image/webp", (875, 583)),
        (LOSSY_WEBP, "image/webp", (200, 134)),
        (EXTENDED_WEBP, "image/webp", (200, 134)),
        (bmp(WHITE), "image/bmp", (16, 2)),
        (tiff([WHITE]), "image/tiff", (16, 2)),
        (BIG_ENDIAN_TIFF, "image/tiff", (16, 2)),
    ],
)
def test_kind_and_size_are_told_by_the_first_bytes(content: bytes, kind: str, size: tuple[int, int]) -> None:
    assert (media_type(content), pixels(content)) == (kind, size)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BM words",
        b"\xff\xd8\xff\xe0\0\0" * 3,
        b"II*\0\xff\xff\xff\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF____WEBPVP8 ",
        b"\xff\xd8" + b"\xff" * 20_000 + b"\xc0\0\x11\x08\0\x02\0\x10",
    ],
)
def test_damaged_beginnings_have_no_size(content: bytes) -> None:
    assert pixels(content) is None


def test_the_pages_of_a_tiff_are_each_a_tiff() -> None:
    frames = list(tiff_frames(tiff([WHITE, (8, 3, b"\xff" * 3)])))
    assert [pixels(frame) for frame in frames] == [(16, 2), (8, 3)]


def test_a_tiff_whose_pages_point_in_a_circle_ends() -> None:
    content = tiff([WHITE])
    circle = content[:-4] + content[4:8]
    assert len(list(tiff_frames(circle))) == 1
