"""PDF: text by page, and refusals that tell the owner what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from crawler.contracts import Source
from crawler.errors import UnreadableDocument
from crawler.formats._ocr import OcrSettings
from crawler.formats.pdf import Pdf
from tests.support.tesseract import need_tesseract
from tests.unit.crawler.samples import REPORT, encrypted_pdf, pdf, real


def source(content: bytes, filename: str = "report.pdf") -> Source:
    return Source(filename=filename, content=content)


def test_headings_and_tables_are_kept() -> None:
    markdown = Pdf(OcrSettings()).convert(source(pdf())).markdown
    assert markdown.startswith("# Annual report\n\nRevenue grew by four percent")
    assert "| Region | 2024 | 2025 |\n|---|---|---|\n| North | 10 | 12 |" in markdown


def test_each_page_begins_where_its_text_does() -> None:
    converted = Pdf(OcrSettings()).convert(source(pdf()))
    assert [page.number for page in converted.pages] == [1, 2]
    assert converted.markdown[converted.pages[1].start :].startswith("| Region")


def test_title_author_and_dates_come_from_the_files_own_properties() -> None:
    content = pdf(info="/Title (Report \\(final\\)) /Author (Ada) /CreationDate (D:20240102030405Z)")
    metadata = Pdf(OcrSettings()).convert(source(content)).metadata
    assert metadata == {
        "title": "Report (final)",
        "author": "Ada",
        "created_at": "2024-01-02",
        "page_count": 2,
    }


def test_a_page_without_text_keeps_its_number_and_is_named_in_a_warning() -> None:
    converted = Pdf(OcrSettings()).convert(source(pdf([REPORT[0], [], REPORT[1]])))
    assert [page.number for page in converted.pages] == [1, 2, 3]
    assert converted.markdown[converted.pages[2].start :].startswith("| Region")
    assert converted.warnings == ("No text on page 2.",)


def test_more_than_a_thousand_pages_are_read_to_the_last() -> None:
    # At another height each time, or it would be taken for a running head.
    content = pdf([[(11, 72, 100 + n % 600, f"Chapter {n} tells of {n} things.")] for n in range(1, 1102)])
    converted = Pdf(OcrSettings()).convert(source(content))
    assert len(converted.pages) == 1101
    assert converted.markdown[converted.pages[-1].start :].endswith("Chapter 1101 tells of 1101 things.")


@pytest.mark.parametrize(
    ("content", "what_to_do"),
    [
        (encrypted_pdf(), "encrypted. Remove the password and upload it again"),
        (pdf([[], []]), r"no text, and text recognition \(OCR\) found none"),
        (b"%PDF-1.7\nnothing else", "broken. Open it in a PDF program, save it again"),
        (b"just words", "not a PDF"),
    ],
    ids=["encrypted", "empty", "broken", "misnamed"],
)
def test_what_cannot_be_read_says_what_to_do(content: bytes, what_to_do: str) -> None:
    with pytest.raises(UnreadableDocument, match=what_to_do):
        Pdf(OcrSettings()).convert(source(content))


def test_what_the_first_reader_refuses_the_second_may_still_read() -> None:
    cut = pdf()[:-200]  # the cross-reference table is gone
    assert "Revenue grew" in Pdf(OcrSettings()).convert(source(cut)).markdown


def test_a_pdf_is_known_by_its_first_bytes_whatever_its_name() -> None:
    assert Pdf(OcrSettings()).accepts(source(pdf(), "report.txt"))


OFF, FORCE = OcrSettings(ocr="off"), OcrSettings(ocr="force")


def test_the_text_of_scanned_pages_is_recognised_on_its_page() -> None:
    need_tesseract()
    converted = Pdf(OcrSettings()).convert(source(real("scan.pdf")))
    second = converted.markdown[converted.pages[1].start : converted.pages[2].start]
    assert "Sentence two: book at the travel desk." in converted.markdown[: converted.pages[1].start]
    assert "| Berlin | 28 | 119.5 |" in second
    assert converted.warnings == ("The text of pages 1, 2, 3 was recognised (OCR) and may have mistakes.",)


def test_the_pages_are_counted_before_they_are_read_and_while_they_are_recognised() -> None:
    need_tesseract()
    told: list[tuple[int, int]] = []
    scan = source(real("scan.pdf")).model_copy(update={"report": lambda *pages: told.append(pages)})
    Pdf(OcrSettings()).convert(scan)
    assert told == [(0, 3), (0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_pages_of_a_written_pdf_are_counted_before_they_are_read() -> None:
    told: list[tuple[int, int]] = []
    Pdf(OcrSettings()).convert(source(pdf()).model_copy(update={"report": lambda *pages: told.append(pages)}))
    assert told == [(0, 2)]


def test_recognition_leaves_pages_with_text_alone_unless_it_is_forced() -> None:
    need_tesseract()
    written = source(pdf())
    assert Pdf(OcrSettings()).convert(written).warnings == ()
    forced = Pdf(FORCE).convert(written)
    assert "Revenue grew by four percent" in forced.markdown
    assert forced.warnings == ("The text of pages 1, 2 was recognised (OCR) and may have mistakes.",)
    assert [page.number for page in forced.pages] == [1, 2]


def test_recognition_that_is_off_leaves_scans_unread_and_says_so() -> None:
    with pytest.raises(UnreadableDocument, match=r"scanned. Run text recognition \(OCR\)"):
        Pdf(OFF).convert(source(real("scan.pdf")))
    half = Pdf(OFF).convert(source(pdf([REPORT[0], []])))
    assert half.warnings == ("No text on page 2; if scanned, run text recognition (OCR).",)


@pytest.mark.parametrize("how", [OcrSettings(), FORCE, OcrSettings(ocr_languages=("eng", "xyz"))])
def test_a_scan_says_what_to_install_where_the_data_is_missing(
    how: OcrSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    needed = " ".join(f"tesseract-ocr-{language}" for language in how.ocr_languages)
    with pytest.raises(UnreadableDocument, match=f"apt-get install tesseract-ocr {needed}"):
        Pdf(how).convert(source(real("scan.pdf")))


def test_text_is_kept_where_the_data_for_other_pages_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    converted = Pdf(OcrSettings()).convert(source(real("half-scanned.pdf")))
    assert "Revenue grew" in converted.markdown
    assert converted.warnings[0].startswith("No text on page 2. Text recognition needs Tesseract's data")


def test_the_scanned_pages_among_written_ones_are_recognised() -> None:
    need_tesseract()
    converted = Pdf(OcrSettings()).convert(source(real("half-scanned.pdf")))
    assert converted.markdown[converted.pages[1].start :].startswith("# Harbour notice")
    assert converted.warnings == ("The text of page 2 was recognised (OCR) and may have mistakes.",)


def test_pictures_come_only_when_wanted_and_stand_where_they_are_in_the_text() -> None:
    content = real("policy.pdf")
    assert Pdf(OFF).convert(source(content)).images == ()
    converted = Pdf(OFF).convert(source(content).model_copy(update={"with_images": True}))
    assert [image.media_type for image in converted.images] == ["image/png"]
    assert "![" not in converted.markdown
    assert converted.markdown == Pdf(OFF).convert(source(content)).markdown
    assert converted.images[0].offset <= converted.pages[1].start
