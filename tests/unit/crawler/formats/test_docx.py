"""Word documents."""

from __future__ import annotations

import io
import zipfile

import pytest

from crawler.contracts import Converted, Source
from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats.docx import Docx
from crawler.settings import Settings
from tests.unit.crawler.samples import compound_file, docx, paragraph, real

PAGE = "<w:p><w:r><w:lastRenderedPageBreak/><w:t>{}</w:t></w:r></w:p>"


def source(content: bytes, filename: str = "handbook.docx") -> Source:
    return Source(filename=filename, content=content)


def converted(content: bytes) -> Converted:
    return Docx(Settings()).convert(source(content))


def saying_pages(content: bytes, pages: int) -> bytes:
    """The document with the number of pages that its program counted."""
    output = io.BytesIO(content)
    with zipfile.ZipFile(output, "a") as archive:
        namespace = "http://schemas.openxmlformats.org/officeDocument/2006/extended-properties"
        archive.writestr(
            "docProps/app.xml", f'<Properties xmlns="{namespace}"><Pages>{pages}</Pages></Properties>'
        )
    return output.getvalue()


def test_headings_and_tables_are_kept() -> None:
    markdown = converted(docx()).markdown
    assert markdown.startswith("# Handbook\n\nWorking hours")
    assert "## Leave\n\n| Kind | Days |\n| --- | --- |\n| Annual | 30 |" in markdown


def test_core_properties_become_metadata() -> None:
    metadata = converted(docx()).metadata
    assert metadata == {"title": "Staff handbook", "author": "Ada", "created_at": "2024-01-02T03:04:05Z"}


def test_pages_are_known_where_there_are_as_many_as_its_program_counted() -> None:
    body = paragraph("Start") + PAGE.format("Second") + paragraph("Start") + PAGE.format("Third")
    result = converted(saying_pages(docx(body), 3))
    starts = [result.markdown[page.start :].split()[0] for page in result.pages]
    assert starts == ["Start", "Second", "Third"]
    assert result.metadata["page_count"] == 3


@pytest.mark.parametrize("said", [1, 3, 40])
def test_pages_that_do_not_add_up_are_not_told(said: int) -> None:
    body = paragraph("Start") + PAGE.format("Second")
    assert converted(saying_pages(docx(body), said)).pages == ()


def test_pictures_come_with_their_places_where_they_are_asked_for() -> None:
    asked = source(real("policy.docx")).model_copy(update={"with_images": True})
    result = Docx(Settings()).convert(asked)
    (image,) = result.images
    assert image.media_type == "image/png"
    assert image.content.startswith(b"\x89PNG")
    assert "First class" in result.markdown[: image.offset]
    assert "Rates" not in result.markdown[: image.offset]
    not_asked = converted(real("policy.docx"))
    assert (not_asked.images, not_asked.markdown) == ((), result.markdown)
    assert not_asked.metadata["image_count"] == 1


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    with pytest.raises(DocumentTooLarge):
        converted(docx(paragraph("A" * 120_000_000)))


@pytest.mark.parametrize(
    ("content", "what_to_do"),
    [
        (compound_file("EncryptionInfo", "EncryptedPackage"), "Remove the password"),
        (compound_file("1Table", "WordDocument"), r"Save it as \.docx"),
        (compound_file("Other"), "save it again"),
        (real("policy.doc"), r"Save it as \.docx"),
    ],
    ids=["encrypted", "old", "unknown", "real"],
)
def test_protected_and_old_documents_say_what_to_do(content: bytes, what_to_do: str) -> None:
    assert Docx(Settings()).accepts(source(content))
    with pytest.raises(UnreadableDocument, match=what_to_do):
        converted(content)


def test_an_old_document_is_known_by_its_content() -> None:
    assert Docx(Settings()).accepts(source(real("policy.doc"), "letter"))


def test_another_kind_of_package_is_not_a_word_document() -> None:
    assert not Docx(Settings()).accepts(source(real("rates.xlsx")))
    assert not Docx(Settings()).accepts(source(compound_file("Workbook")))


def test_a_package_with_a_word_document_in_it_is_not_one() -> None:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("word/document.docx", docx())
    assert not Docx(Settings()).accepts(source(output.getvalue()))
