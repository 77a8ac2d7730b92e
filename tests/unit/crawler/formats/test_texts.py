"""Texts of other programs than Word: odt, rtf and epub."""

from __future__ import annotations

import pytest

from crawler.contracts import Converted, Source
from crawler.errors import UnreadableDocument
from crawler.formats.epub import Epub
from crawler.formats.odt import Odt
from crawler.formats.rtf import Rtf
from crawler.settings import Settings
from tests.unit.crawler.packages import open_document, package
from tests.unit.crawler.samples import real

BREAK = (
    '<style:style style:name="Top" style:family="paragraph">'
    '<style:paragraph-properties fo:break-before="page"/></style:style>'
    '<style:style style:name="Chapter" style:parent-style-name="Top"/>'
)


def odt(body: str, **parts: str) -> Converted:
    content = open_document("text", body, **parts)
    return Odt(Settings()).convert(Source(filename="a.odt", content=content))


def pages(count: int) -> str:
    return f'<office:meta><meta:document-statistic meta:page-count="{count}"/></office:meta>'


def epub(chapter: str, **parts: str | bytes) -> Converted:
    found: dict[str, str | bytes] = {
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
        '<rootfiles><rootfile full-path="book.opf"/></rootfiles></container>',
        "book.opf": '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
        '<item id="a" href="text/one%20chapter.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="gone"/></spine></package>',
        "text/one chapter.xhtml": f"<html><body>{chapter}</body></html>",
    }
    content = package({**found, **parts}, "application/epub+zip")
    return Epub(Settings()).convert(Source(filename="a.epub", content=content, with_images=True))


def test_pages_are_known_where_there_are_as_many_as_the_program_counted() -> None:
    body = (
        '<text:p>One</text:p><text:p text:style-name="Chapter">Two</text:p><text:p>more</text:p>'
        "<text:soft-page-break/><text:p>Three</text:p>"
    )
    result = odt(body, styles=BREAK, meta=pages(3))
    assert [result.markdown[page.start :].split()[0] for page in result.pages] == ["One", "Two", "Three"]
    assert odt(body, styles=BREAK, meta=pages(5)).pages == ()
    assert odt(body, styles=BREAK).pages == ()


def test_deleted_text_comments_and_the_table_of_contents_are_left_out() -> None:
    unseen = (
        "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
        "<text:table-of-content><text:p>contents</text:p></text:table-of-content>"
        "<text:p>kept<office:annotation><text:p>comment</text:p></office:annotation> text</text:p>"
    )
    assert odt(unseen).markdown == "kept text"


def test_footnotes_follow_the_paragraph_that_names_them() -> None:
    first, second, third = (
        "<text:note><text:note-citation>1</text:note-citation>"
        f"<text:note-body><text:p>{name}</text:p></text:note-body></text:note>"
        for name in ("first", "second", "third")
    )
    body = f"<text:p>a{first} b{second}</text:p><text:p>c{third}</text:p>"
    assert odt(body).markdown == ("a[^1] b[^2]\n\n[^1]: first\n\n[^2]: second\n\nc[^3]\n\n[^3]: third")


def test_lists_keep_their_levels_and_numbers() -> None:
    styles = (
        '<text:list-style style:name="N"><text:list-level-style-number text:level="1" style:num-format="1"/>'
        '<text:list-level-style-bullet text:level="2"/></text:list-style>'
    )
    body = (
        '<text:list text:style-name="N"><text:list-item><text:p>one</text:p><text:list><text:list-item>'
        "<text:p>inside</text:p></text:list-item></text:list></text:list-item>"
        "<text:list-item><text:p>two</text:p></text:list-item></text:list>"
    )
    assert odt(body, styles=styles).markdown == "1. one\n  - inside\n2. two"


def test_repeated_cells_of_a_table_are_repeated_up_to_a_limit() -> None:
    cell = '<table:table-cell table:number-columns-repeated="{}"><text:p>x</text:p></table:table-cell>'
    row = f"<table:table-row>{cell}</table:table-row>"
    assert odt(f"<table:table>{row.format(3)}</table:table>").markdown.splitlines()[0] == "| x | x | x |"
    assert len(odt(f"<table:table>{row.format(10**9)}</table:table>").markdown) < 20_000


def test_a_table_in_a_cell_and_a_text_box_in_it_are_read_once() -> None:
    def table(*cells: str) -> str:
        inside = "".join(f"<table:table-cell>{cell}</table:table-cell>" for cell in cells)
        return f"<table:table><table:table-row>{inside}</table:table-row></table:table>"

    box = "<text:p>b<draw:frame><draw:text-box><text:p>boxed</text:p></draw:text-box></draw:frame></text:p>"
    markdown = odt(table(table("<text:p>a</text:p>"), box) + "<text:p>after</text:p>").markdown
    assert markdown == "| a | b |\n| --- | --- |\n\nboxed\n\nafter"


def test_an_encrypted_text_says_what_to_do() -> None:
    with pytest.raises(UnreadableDocument, match="Remove the password"):
        odt("", manifest="<manifest:encryption-data/>")


def test_rich_text_that_is_cut_off_says_what_to_do() -> None:
    source = Source(filename="a.rtf", content=real("policy.rtf")[:5000])
    assert Rtf(Settings()).accepts(source)
    with pytest.raises(UnreadableDocument, match="Download it again"):
        Rtf(Settings()).convert(source)


def test_headings_of_rich_text_are_known_by_the_level_or_the_name_of_their_style() -> None:
    content = (
        rb"{\rtf1\ansi{\stylesheet{\s0 Normal;}{\s1\b Heading 1;}{\s12\outlinelevel1 Part;}"
        rb"{\s2 Not heading 12;}{\s3\outlinelevel0 Body;}}"
        rb"\pard\plain\s1\b One\par\pard\plain \s12{Two}\par\pard\plain\s2 A \\s1 b\par"
        rb"\pard\plain\s3\outlinelevel9 Body\par"
        rb"\trowd\cellx100\cellx200\pard\intbl\s1 a\cell\pard\intbl\s0 b\cell\row\pard\plain\s0 End\par}"
    )
    markdown = Rtf(Settings()).convert(Source(filename="a.rtf", content=content)).markdown
    assert [line for line in markdown.split("\n") if line.startswith("#")] == ["# One", "## Two"]


def test_rich_text_is_known_by_its_content() -> None:
    assert Rtf(Settings()).accepts(Source(filename="letter.doc", content=real("policy.rtf")))
    assert not Rtf(Settings()).accepts(Source(filename="letter.rtf", content=b"plain text"))


def test_links_inside_a_book_are_text_and_its_pictures_are_found() -> None:
    chapter = (
        '<p>See <a href="two.xhtml#x">the next</a> and <a href="https://example.com/">the web</a>. '
        '<img src="../p.png" alt="Map"/></p>'
    )
    result = epub(chapter, **{"p.png": b"\x89PNG"})
    assert result.markdown == "See the next and [the web](https://example.com/). Map"
    assert [image.content for image in result.images] == [b"\x89PNG"]
    assert result.markdown[result.images[0].offset :] == "Map"


def test_a_picture_that_a_book_names_outside_itself_is_not_looked_for() -> None:
    result = epub('<p>x <img src="../../../etc/hostname" alt="Map"/></p>')
    assert (result.markdown, result.images, result.metadata) == ("x Map", (), {"image_count": 1})


def test_a_copy_protected_book_is_refused_and_one_with_scrambled_fonts_is_not() -> None:
    method = '<EncryptionMethod Algorithm="{}"/>'
    with pytest.raises(UnreadableDocument, match="copy-protected"):
        epub(
            "<p>x</p>",
            **{"META-INF/encryption.xml": method.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")},
        )
    fonts = method.format("http://www.idpf.org/2008/embedding")
    assert epub("<p>x</p>", **{"META-INF/encryption.xml": fonts}).markdown == "x"
