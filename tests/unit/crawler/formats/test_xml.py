"""XML of any vocabulary, and nothing that a hostile file could use."""

from __future__ import annotations

import pytest

from crawler.contracts import Converted, Source
from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats.xml import Xml
from crawler.settings import Settings
from tests.unit.crawler.text_samples import XML


def read(content: str | bytes) -> Converted:
    raw = content.encode() if isinstance(content, str) else content
    return Xml(Settings()).convert(Source(filename="a.xml", content=raw))


def test_elements_are_headings_records_are_tables_and_attributes_are_kept() -> None:
    assert read(XML).markdown == (
        "# catalog\n\n- **@owner**: Ada\n\n"
        "## book\n\n| title | price |\n|---|---|\n| Travel | 12.50 |\n| Leave | 7 |\n\n"
        "**note**: See the page (target: a.html) for more."
    )
    assert read(XML).metadata["shape"] == {"type": "catalog", "elements": {"book": 2, "note": 1}}


def test_a_section_is_called_by_its_name_or_title() -> None:
    assert (
        "## chapter: Leave" in read("<b><chapter><title>Leave</title><s><p>x</p></s></chapter></b>").markdown
    )


def test_the_declared_encoding_is_read() -> None:
    assert (
        read('<?xml version="1.0" encoding="ISO-8859-1"?><a>Größe</a>'.encode("latin-1")).markdown
        == "# a\n\nGröße"
    )
    assert read('<?xml version="1.0"?><a>Größe</a>'.encode("utf-16")).markdown == "# a\n\nGröße"


@pytest.mark.parametrize(
    "declaration",
    [
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/hostname">',
        '<!ENTITY a PUBLIC "x" "http://127.0.0.1:9/x">',
        '<!ENTITY % a SYSTEM "http://127.0.0.1:9/x.dtd"> %a;',
    ],
)
def test_entities_of_the_files_own_are_refused(declaration: str) -> None:
    with pytest.raises(UnreadableDocument, match="entities"):
        read(f"<!DOCTYPE x [{declaration}]><x>&a;</x>")


def test_a_document_type_without_entities_is_read_and_nothing_is_fetched() -> None:
    text = '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><x>a&nbsp;b</x>'
    assert read(text).markdown == "# x\n\na\xa0b"


def test_what_is_not_well_formed_is_refused_with_its_line() -> None:
    with pytest.raises(UnreadableDocument, match="line 2"):
        read("<a>\n<b></a>")
    with pytest.raises(UnreadableDocument, match="upload"):
        read('<?xml version="1.0" encoding="no-such"?><a/>')


def test_depth_and_number_of_elements_are_bounded() -> None:
    with pytest.raises(UnreadableDocument, match="deep"):
        read("<a>" * 100_000)
    with pytest.raises(DocumentTooLarge):
        read(f"<r>{'<a/>' * 2_000_001}</r>")


@pytest.mark.parametrize(
    ("filename", "content", "accepted"),
    [
        ("feed", b'<?xml version="1.0"?><rss/>', True),
        ("picture.svg", b"<svg/>", True),
        ("a.xyz", '<?xml version="1.0"?><a/>'.encode("utf-16"), True),
        ("page.xhtml", b'<?xml version="1.0"?><html/>', False),
        ("feed.xml", b'<?xml version="1.0"?><!-- c --><html lang="en">', False),
        ("a.xml", b"PK\x03\x04", False),
    ],
)
def test_xml_is_known_by_its_beginning_or_its_name(filename: str, content: bytes, accepted: bool) -> None:
    assert Xml(Settings()).accepts(Source(filename=filename, content=content)) is accepted
