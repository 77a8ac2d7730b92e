"""Web pages."""

from __future__ import annotations

import pytest

from crawler.contracts import Source
from crawler.formats.html import Html
from crawler.settings import Settings
from tests.unit.crawler.samples import HTML


def source(content: bytes, filename: str = "page.html") -> Source:
    return Source(filename=filename, content=content)


def markdown_of(content: bytes) -> str:
    return Html(Settings()).convert(source(content)).markdown


def test_headings_tables_and_lists_are_kept() -> None:
    assert markdown_of(HTML).startswith(
        "# Travel\n\nBook **early**.\n\n## Rates\n\n| City | Rate |\n| --- | --- |\n| Berlin | 28 |"
        "\n\n- train\n- bus"
    )


@pytest.mark.parametrize("unwanted", ["steal", "javascript", "data:", "base64", "p {}", "<"])
def test_nothing_that_runs_is_kept(unwanted: str) -> None:
    assert unwanted not in markdown_of(HTML)


def test_the_text_of_links_and_pictures_is_kept() -> None:
    markdown = markdown_of(HTML)
    assert "press" in markdown
    assert "a map" in markdown


def test_title_and_language_are_metadata_and_not_text() -> None:
    converted = Html(Settings()).convert(source(HTML))
    assert converted.metadata == {"title": "Travel & expenses", "language": "en"}
    assert "Travel & expenses" not in converted.markdown


def test_a_page_is_read_in_the_encoding_that_it_declares() -> None:
    page = '<html><head><meta charset="iso-8859-2"></head><body><p>zażółć</p></body></html>'
    assert "zażółć" in markdown_of(page.encode("iso-8859-2"))


@pytest.mark.parametrize(
    "beginning",
    [
        b"<!DOCTYPE html>",
        b"<html>",
        b"\xef\xbb\xbf<html lang=de>",
        b"<!-- a --><!-- b -->\n<html>",
        b"<?xml version='1.0'?><html>",
    ],
)
def test_a_page_is_known_by_its_beginning_whatever_its_name(beginning: bytes) -> None:
    assert Html(Settings()).accepts(source(beginning + b"<p>x</p>", "download"))


def test_a_beginning_of_many_comments_is_looked_at_quickly() -> None:
    assert not Html(Settings()).accepts(source(b"<!---->" * 100_000, "download"))


@pytest.mark.parametrize(
    "empty",
    [
        "<h2>&nbsp;</h2>",
        "<h2> </h2>",
        "<p><b>\u00a0</b></p>",
        "<p><img src='a.png'> </p>",
        "<p>&#160;<p>",
        "<td><p>&ensp;</p></td>",
    ],
)
def test_an_empty_paragraph_or_heading_does_no_harm(empty: str) -> None:
    page = f"<html><body><h1>Prices</h1>{empty}<p>They hold until May.</p></body></html>".encode()
    markdown = markdown_of(page)
    assert markdown.startswith("# Prices\n")
    assert markdown.rstrip().endswith("They hold until May.")


def test_a_page_of_paragraphs_that_never_end_is_read_in_time_that_grows_with_it() -> None:
    assert markdown_of(b"<html><body><h1>A</h1>" + b"<p> <b>" * 20_000 + b"end</body></html>")


def test_what_the_page_says_of_itself_becomes_metadata() -> None:
    page = (
        b"<html lang='de-AT'><head><title>Rates &amp; prices</title><meta name=\"Author\" content='Ada'>"
        b'<meta content="a, b" name="keywords"><meta property="article:published_time" content="2024-03-01">'
        b"</head><body><p>x</p></body></html>"
    )
    assert Html(Settings()).convert(source(page)).metadata == {
        "title": "Rates & prices",
        "language": "de",
        "author": "Ada",
        "keywords": "a, b",
        "created_at": "2024-03-01",
    }


def test_a_title_without_a_head_around_it_is_no_text() -> None:
    page = Html(Settings()).convert(
        source(b"<html><title>Travel</title><body><p>Book early.</p></body></html>")
    )
    assert page.markdown.strip() == "Book early."
    assert page.metadata["title"] == "Travel"
