"""Pictures: recognised text, and what happens where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from crawler.contracts import Source
from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats._ocr import OcrSettings
from crawler.formats.image import Picture
from tests.fixtures.formats.make_inside import png
from tests.support.tesseract import need_tesseract
from tests.unit.crawler.samples import real

OFF = Picture(OcrSettings(ocr="off"))
BLANK = png((200, 100, b"\xff" * 25 * 100))


def source(content: bytes, *, with_images: bool = False, filename: str = "x") -> Source:
    return Source(filename=filename, content=content, with_images=with_images)


@pytest.mark.parametrize("name", ["note.png", "note.jpg", "note.gif", "note.webp"])
def test_the_text_of_a_picture_of_any_kind_is_recognised(name: str) -> None:
    need_tesseract()
    converted = Picture(OcrSettings()).convert(source(real(name)))
    assert converted.markdown.startswith("# Harbour notice\n\nThe north quay is closed from 3 to 9 March")
    assert converted.pages == ()
    assert converted.warnings == ("The text was recognised (OCR) and may have mistakes.",)


def test_each_page_of_a_tiff_is_a_page() -> None:
    need_tesseract()
    converted = Picture(OcrSettings()).convert(source(real("pages.tiff"), with_images=True))
    assert [page.number for page in converted.pages] == [1, 2]
    assert converted.markdown[converted.pages[1].start :].startswith("# Travel policy")
    assert [image.media_type for image in converted.images] == ["image/png"] * 2


def test_words_of_the_languages_that_are_set_are_recognised() -> None:
    need_tesseract("deu", "eng")
    settings = OcrSettings(ocr_languages=("deu", "eng"))
    assert "north quay is closed" in Picture(settings).convert(source(real("note.png"))).markdown


def test_a_picture_without_text_is_refused_unless_it_may_be_described() -> None:
    need_tesseract()
    with pytest.raises(UnreadableDocument, match="No text was recognised"):
        Picture(OcrSettings()).convert(source(BLANK))
    converted = Picture(OcrSettings()).convert(source(BLANK, with_images=True))
    assert (converted.markdown, len(converted.images)) == ("", 1)


def test_a_picture_says_what_to_install_where_the_data_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    with pytest.raises(UnreadableDocument, match="apt-get install tesseract-ocr tesseract-ocr-eng"):
        Picture(OcrSettings()).convert(source(real("note.png")))


def test_a_package_is_named_as_debian_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    with pytest.raises(UnreadableDocument, match="tesseract-ocr-chi-sim"):
        Picture(OcrSettings(ocr_languages=("chi_sim",))).convert(source(real("note.png")))


def test_nothing_is_recognised_where_it_is_turned_off() -> None:
    with pytest.raises(UnreadableDocument, match=r"\(OCR\) is turned off"):
        OFF.convert(source(real("note.png")))
    assert OFF.convert(source(real("note.png"), with_images=True)).images[0].media_type == "image/png"


def test_more_pixels_than_can_be_read_are_refused_before_they_are() -> None:
    huge = real("note.png").replace((875).to_bytes(4, "big"), (1_000_000).to_bytes(4, "big"), 1)
    with pytest.raises(DocumentTooLarge, match="1000000 by 583 pixels"):
        Picture(OcrSettings()).convert(source(huge))


@pytest.mark.parametrize("name", ["note.png", "note.gif", "note.webp"])
def test_a_picture_that_is_cut_off_is_refused(name: str) -> None:
    need_tesseract()
    with pytest.raises(UnreadableDocument, match="picture is broken"):
        Picture(OcrSettings()).convert(source(real(name)[:1000]))


def test_a_picture_is_known_by_its_first_bytes_and_not_by_its_name() -> None:
    assert OFF.accepts(source(real("note.jpg"), filename="report.txt"))
    assert not OFF.accepts(source(b"just words", filename="photo.png"))
