"""Metadata by rules."""

from __future__ import annotations

from typing import Any

import pytest

from crawler.contracts import Converted, Page
from crawler.extractors.rules import MAX_METADATA_BYTES, bounded, find


def extracted(markdown: str = "", filename: str = "annual_report.pdf", **properties: Any) -> dict[str, Any]:
    return find(filename, Converted(markdown=markdown, metadata=properties))


def test_the_title_is_what_the_file_says_of_itself() -> None:
    assert extracted("# Heading", title=" The\n report ")["title"] == "The report"


@pytest.mark.parametrize(
    "useless", ["", "Untitled", "Microsoft Word - final2.doc", "scan.pdf", "Document1", 7, ["x"]]
)
def test_a_useless_title_gives_way_to_the_first_heading(useless: Any) -> None:
    assert (
        extracted("intro\n\n## The **first** [heading](x) ##", title=useless)["title"] == "The first heading"
    )


def test_without_heading_the_file_name_is_the_title() -> None:
    assert extracted("no heading")["title"] == "annual report"
    assert extracted("no heading", filename="folder/.pdf")["title"] == ".pdf"


@pytest.mark.parametrize(
    "properties", [{"sheets": []}, {"shape": {"type": "catalog"}}, {"columns": [], "rows": 2}]
)
def test_names_of_sheets_and_keys_are_no_titles(properties: dict[str, Any]) -> None:
    assert extracted("## Sheet1\n\n| a |\n|---|\n| 1 |", **properties)["title"] == "annual report"


def test_a_long_title_is_cut() -> None:
    assert len(extracted(title="word " * 100)["title"]) <= 120


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The notice period is thirty days for all members of staff, and longer for some.", "en"),
        ("Die Kündigungsfrist beträgt für alle Beschäftigten dreißig Tage, für manche mehr.", "de"),
        ("Le délai de préavis est de trente jours pour tous les membres du personnel.", "fr"),
    ],
)
def test_the_language_is_that_of_the_text(text: str, language: str) -> None:
    assert extracted(text, language="xx")["language"] == language


def test_too_little_text_leaves_the_language_to_the_file() -> None:
    assert extracted("12 | 34", language="da")["language"] == "da"
    assert "language" not in extracted("12 | 34")


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"2025-01-01 00:00:{second} INFO request {second} ok\n" for second in range(10, 60)),
        "".join(f"| South-{row} | {row}.234,50 | {row},5 % |\n" for row in range(40)),
        "# Dockerfile\n\nFROM python:3.12\nRUN pip install kakapo",
    ],
)
def test_names_and_numbers_are_in_no_language(text: str) -> None:
    assert "language" not in extracted(text)


@pytest.mark.parametrize("tag", ["en", "en-US", "en_GB", "EN"])
def test_a_language_of_the_file_is_told_without_its_region(tag: str) -> None:
    assert extracted("Few words.", language=tag)["language"] == "en"


def test_dates_are_days_and_anything_else_is_left_out() -> None:
    found = extracted(created_at="2024-01-02T03:04:05Z", modified_at="yesterday")
    assert found["created_at"] == "2024-01-02"
    assert "modified_at" not in found
    assert "modified_at" not in extracted(modified_at="0000-01-01")


def test_author_pages_and_words_are_told() -> None:
    converted = Converted(
        markdown="one two three",
        pages=(Page(number=1, start=0), Page(number=2, start=4)),
        metadata={"author": "Ada"},
    )
    found = find("a.pdf", converted)
    assert (found["author"], found["page_count"], found["word_count"]) == ("Ada", 2, 3)


def test_tables_pictures_and_words_are_counted() -> None:
    found = extracted(
        "# A\n\n| a |\n|---|\n| 1 |\n\n![a map](x.png) and ![](y.png)\n\n```\n| b |\n|---|\n```\n"
    )
    assert (found["table_count"], found["image_count"]) == (1, 2)
    assert extracted("text", image_count=7)["image_count"] == 7


def test_what_else_the_file_says_of_itself_is_passed_on() -> None:
    columns = [{"name": "a", "type": "integer", "min": 1, "max": 2}]
    found = extracted(
        "x", columns=columns, rows=2, functions=["main"], subject=" Leave\n ", keywords="a, b;c"
    )
    assert (found["columns"], found["rows"], found["functions"]) == (columns, 2, ["main"])
    assert (found["subject"], found["keywords"]) == ("Leave", ["a", "b", "c"])


@pytest.mark.parametrize("odd", [float("nan"), object(), {1, 2}, b"bytes", None])
def test_what_is_not_json_is_not_passed_on(odd: Any) -> None:
    assert "odd" not in extracted("x", odd=odd)


def test_metadata_that_is_too_long_is_left_out_with_a_warning() -> None:
    found = bounded({"title": "T", "sheets": ["x" * MAX_METADATA_BYTES], "rows": 2})
    assert found.metadata == {"title": "T", "rows": 2}
    assert "sheets" in found.warnings[0]
