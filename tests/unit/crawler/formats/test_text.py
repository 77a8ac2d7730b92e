"""Plain text and Markdown: the same decoding, the front matter of the one."""

from __future__ import annotations

from typing import Any

import pytest

from crawler.blocks import scan
from crawler.contracts import Converted, Format, Source
from crawler.errors import UnreadableDocument
from crawler.extractors.rules import find
from crawler.formats.markdown import MAX_FRONT_MATTER, Markdown
from crawler.formats.text import Text
from crawler.settings import Settings

BOTH = [(Text(Settings()), "a.txt"), (Markdown(Settings()), "a.md")]
TEXT = "Grüße – größer\n\n  zwei\n"


@pytest.mark.parametrize(("format_", "filename"), BOTH)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_read_with_or_without_a_byte_order_mark(
    format_: Format[Any], filename: str, encoding: str
) -> None:
    source = Source(filename=filename, content=TEXT.encode(encoding))
    assert format_.accepts(source)
    assert format_.convert(source).markdown == TEXT


def test_what_is_not_unicode_is_read_as_windows_1252_with_a_warning() -> None:
    converted = Text(Settings()).convert(Source(filename="a.txt", content=TEXT.encode("cp1252")))
    assert converted.markdown == TEXT
    assert "Windows-1252" in converted.warnings[0]


def test_line_ends_become_line_feeds() -> None:
    converted = Text(Settings()).convert(Source(filename="a.txt", content=b"a\r\nb\rc\n"))
    assert converted.markdown == "a\nb\nc\n"


@pytest.mark.parametrize(("format_", "filename"), BOTH)
@pytest.mark.parametrize("content", [b"a\x00b", b"%PDF-1.7", b"PK\x03\x04rest", b"\x01\x02", b"GIF89a"])
def test_binary_content_is_not_text_whatever_its_name(
    format_: Format[Any], filename: str, content: bytes
) -> None:
    source = Source(filename=filename, content=content)
    assert not format_.accepts(source)
    with pytest.raises(UnreadableDocument, match="UTF-8"):
        format_.convert(source)


def test_a_broken_utf_16_text_is_refused() -> None:
    with pytest.raises(UnreadableDocument, match="damaged"):
        Text(Settings()).convert(Source(filename="a.txt", content=b"\xff\xfea"))


@pytest.mark.parametrize("filename", ["notes.rst", "a.xyz", "NOTES", "server.log", "a.pl.bak"])
def test_a_text_of_any_name_is_text(filename: str) -> None:
    assert Text(Settings()).accepts(Source(filename=filename, content=b"words"))


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("a.pdf", b"words"),
        ("a.txt", b"<!doctype html><p>words"),
        ("a.txt", b"{\\rtf1 words}"),
        ("a.bin", b""),
    ],
)
def test_what_its_name_or_its_beginning_says_to_be_of_another_kind_is_not_text(
    filename: str, content: bytes
) -> None:
    assert not Text(Settings()).accepts(Source(filename=filename, content=content))


def markdown(text: str) -> Converted:
    return Markdown(Settings()).convert(Source(filename="a.md", content=text.encode()))


def test_front_matter_of_markdown_becomes_properties_and_no_text() -> None:
    converted = markdown(
        "---\ntitle: 'Leave: a guide'\nauthor: [Ada, Bob]\ndate: 2024-01-02\ntags:\n  - rest\n"
        "keywords: work, home\ndescription: >\n  Of days\n  off.\nlang: no\nlayout: post\n---\n\n"
        "# Leave\n\n---\n\nText\n"
    )
    assert converted.markdown == "# Leave\n\n---\n\nText\n"
    assert converted.metadata == {
        "title": "Leave: a guide",
        "author": "Ada, Bob",
        "created_at": "2024-01-02",
        "keywords": "rest, work, home",
        "subject": "Of days off.",
        "language": "no",
    }


def test_the_properties_of_front_matter_are_those_of_the_document() -> None:
    found = find("a.md", markdown("---\ntitle: Leave\ndate: 2024-01-02T10:00:00Z\ntags: [a, b]\n...\nText\n"))
    assert (found["title"], found["created_at"], found["keywords"]) == ("Leave", "2024-01-02", ["a", "b"])


@pytest.mark.parametrize(
    "text",
    [
        "---\n\nA rule above\n\n---\n\nand below\n",
        "---\ntitle: never closed\n",
        "---\ntitle: nothing below\n---\n\n",
        "---\ntitle: {{ page.title }}\n---\nText",
        "---\n- a\n- b\n---\nText",
        "---\n\nNote: a rule above\n\n---\n\nand below\n",
        f"---\na: {'[' * 5_000}\n---\nText",
        f"---\ntitle: {'x' * MAX_FRONT_MATTER}\n---\nText",
        "Text\n---\ntitle: a\n---\n",
    ],
)
def test_what_is_no_front_matter_is_text(text: str) -> None:
    assert (markdown(text).markdown, markdown(text).metadata) == (text, {})


def test_front_matter_runs_nothing_and_its_aliases_do_not_grow_without_end() -> None:
    levels = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30))
    code = "a: !!python/object/apply:os._exit [1]\n"
    converted = markdown(f"---\n{code}a0: &a0 {{x: y}}\n{levels}title: Leave\n---\nText")
    assert (converted.markdown, converted.metadata) == ("Text", {"title": "Leave"})


def headings(filename: str, *lines: str) -> list[tuple[int, str]]:
    source = Source(filename=filename, content="\n".join(lines).encode())
    found = Text(Settings()).convert(source).markdown
    blocks = scan(found)
    assert "fence" not in {block.kind for block in blocks}
    return [(block.level, block.text) for block in blocks if block.kind == "heading"]


def test_sections_of_restructured_text_are_headings_by_the_order_of_their_lines() -> None:
    found = headings(
        *("a.rst", "=====", "Guide", "=====", "", "Setup", "-----", "Text::", "", "  # a comment", "  ~~~~"),
        *("", "Sub", "~~~", "more", "", "=====  =====", "Name   Cost", "=====  =====", "Alpha  10"),
        *("=====  =====", "", "Code", "````", "x", "", "Use", "---", "", "a", "b", "---", "c", "", "---"),
    )
    assert found == [(1, "Guide"), (2, "Setup"), (3, "Sub"), (4, "Code"), (2, "Use")]


def test_sections_of_asciidoc_are_headings_and_what_stands_in_code_is_none() -> None:
    found = headings(
        *("a.adoc", "= Guide", "", "== Setup", "[source,sh]", "----", "# a comment", "== x", "~~~", "----"),
        *("```sh", "= y", "```", "Old", "~~~", "", "Old style", "~~~~~~~~~", "----", "=== Last"),
    )
    assert found == [(1, "Guide"), (2, "Setup"), (3, "Old style"), (3, "Last")]


def test_sections_of_org_are_headings_and_comments_are_none() -> None:
    found = headings(
        "a.org", "#+TITLE: x", "* Guide", "# comment", "~~~", "- a", "---", "** Setup", "*bold* x"
    )
    assert found == [(1, "Guide"), (2, "Setup")]


def test_a_line_of_tildes_underlines_a_title_and_what_nothing_closes_is_no_fence() -> None:
    assert headings("a.txt", "Guide", "=====", "", "Setup", "~~~~~", "Text", "~~~~", "", "Use", "---") == [
        (1, "Guide"), (3, "Setup"), (2, "Use"),
    ]  # fmt: skip
    assert headings("a.txt", "# A", "```", "text", "# B", "```sh", "# C") == [(1, "A"), (1, "B"), (1, "C")]


def test_code_between_fences_in_a_text_stays_code() -> None:
    text = "A\n\n```sh\n# a\n~~~\n```\n\n# B\n"
    assert Text(Settings()).convert(Source(filename="a.txt", content=text.encode())).markdown == text
