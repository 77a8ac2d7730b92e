"""Metadata by rules."""

from __future__ import annotations

from typing import Any

import pytest

from crawler.contracts import Converted, Page
from crawler.extractors.rules import find


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


def test_dates_are_days_and_anything_else_is_left_out() -> None:
    found = extracted(created_at="2024-01-02T03:04:05Z", modified_at="yesterday")
    assert found["created_at"] == "2024-01-02"
    assert "modified_at" not in found


def test_author_pages_and_words_are_told() -> None:
    converted = Converted(
        markdown="one two three",
        pages=(Page(number=1, start=0), Page(number=2, start=4)),
        metadata={"author": "Ada"},
    )
    found = find("a.pdf", converted)
    assert (found["author"], found["page_count"], found["word_count"]) == ("Ada", 2, 3)
