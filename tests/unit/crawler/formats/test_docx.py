"""Word documents."""

from __future__ import annotations

import pytest

from crawler.contracts import Source
from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats.docx import Docx
from crawler.settings import Settings
from tests.unit.crawler.samples import docx, paragraph

COMPOUND_FILE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def source(content: bytes, filename: str = "handbook.docx") -> Source:
    return Source(filename=filename, content=content)


def test_headings_and_tables_are_kept() -> None:
    markdown = Docx(Settings()).convert(source(docx())).markdown
    assert markdown.startswith("# Handbook\n\nWorking hours")
    assert "## Leave\n\n| Kind | Days |\n| --- | --- |\n| Annual | 30 |" in markdown


def test_core_properties_become_metadata() -> None:
    metadata = Docx(Settings()).convert(source(docx())).metadata
    assert metadata == {"title": "Staff handbook", "author": "Ada", "created_at": "2024-01-02T03:04:05Z"}


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    with pytest.raises(DocumentTooLarge):
        Docx(Settings()).convert(source(docx(paragraph("A" * 120_000_000))))


@pytest.mark.parametrize(
    ("stream", "what_to_do"),
    [("EncryptedPackage", "Remove the password"), ("WordDocument", r"Save it as \.docx")],
)
def test_protected_and_old_documents_say_what_to_do(stream: str, what_to_do: str) -> None:
    file = source(COMPOUND_FILE + bytes(600) + stream.encode("utf-16-le"))
    assert Docx(Settings()).accepts(file)
    with pytest.raises(UnreadableDocument, match=what_to_do):
        Docx(Settings()).convert(file)


def test_another_kind_of_package_is_not_a_word_document() -> None:
    assert not Docx(Settings()).accepts(source(docx().replace(b"word/document", b"xl/workbook.x")))
