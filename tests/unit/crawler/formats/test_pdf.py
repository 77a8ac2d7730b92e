"""PDF: text by page, and refusals that tell the owner what to do."""

from __future__ import annotations

import pytest

from crawler.contracts import Source
from crawler.errors import UnreadableDocument
from crawler.formats.pdf import Pdf
from crawler.settings import Settings
from tests.unit.crawler.samples import REPORT, encrypted_pdf, pdf


def source(content: bytes, filename: str = "report.pdf") -> Source:
    return Source(filename=filename, content=content)


def test_headings_and_tables_are_kept() -> None:
    markdown = Pdf(Settings()).convert(source(pdf())).markdown
    assert markdown.startswith("# Annual report\n\nRevenue grew by four percent")
    assert "| Region | 2024 | 2025 |\n|---|---|---|\n| North | 10 | 12 |" in markdown


def test_each_page_begins_where_its_text_does() -> None:
    converted = Pdf(Settings()).convert(source(pdf()))
    assert [page.number for page in converted.pages] == [1, 2]
    assert converted.markdown[converted.pages[1].start :].startswith("| Region")


def test_title_author_and_dates_come_from_the_files_own_properties() -> None:
    content = pdf(info="/Title (Report \\(final\\)) /Author (Ada) /CreationDate (D:20240102030405Z)")
    metadata = Pdf(Settings()).convert(source(content)).metadata
    assert metadata == {
        "title": "Report (final)",
        "author": "Ada",
        "created_at": "2024-01-02",
        "page_count": 2,
    }


def test_a_page_without_text_keeps_its_number_and_is_named_in_a_warning() -> None:
    converted = Pdf(Settings()).convert(source(pdf([REPORT[0], [], REPORT[1]])))
    assert [page.number for page in converted.pages] == [1, 2, 3]
    assert converted.markdown[converted.pages[2].start :].startswith("| Region")
    assert converted.warnings == ("No text on page 2; if scanned, run text recognition (OCR).",)


def test_more_than_a_thousand_pages_are_read_to_the_last() -> None:
    # At another height each time, or it would be taken for a running head.
    content = pdf([[(11, 72, 100 + n % 600, f"Chapter {n} tells of {n} things.")] for n in range(1, 1102)])
    converted = Pdf(Settings()).convert(source(content))
    assert len(converted.pages) == 1101
    assert converted.markdown[converted.pages[-1].start :].endswith("Chapter 1101 tells of 1101 things.")


@pytest.mark.parametrize(
    ("content", "what_to_do"),
    [
        (encrypted_pdf(), "encrypted. Remove the password and upload it again"),
        (pdf([[], []]), r"scanned. Run text recognition \(OCR\)"),
        (b"%PDF-1.7\nnothing else", "broken. Open it in a PDF program, save it again"),
        (b"just words", "not a PDF"),
    ],
    ids=["encrypted", "scanned", "broken", "misnamed"],
)
def test_what_cannot_be_read_says_what_to_do(content: bytes, what_to_do: str) -> None:
    with pytest.raises(UnreadableDocument, match=what_to_do):
        Pdf(Settings()).convert(source(content))


def test_what_the_first_reader_refuses_the_second_may_still_read() -> None:
    cut = pdf()[:-200]  # the cross-reference table is gone
    assert "Revenue grew" in Pdf(Settings()).convert(source(cut)).markdown


def test_a_pdf_is_known_by_its_first_bytes_whatever_its_name() -> None:
    assert Pdf(Settings()).accepts(source(pdf(), "report.txt"))
