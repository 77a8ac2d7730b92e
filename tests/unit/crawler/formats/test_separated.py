"""CSV and TSV."""

from __future__ import annotations

import pytest

from crawler.contracts import Converted, Source
from crawler.formats.csv import Csv
from crawler.formats.tsv import Tsv
from crawler.settings import Settings
from tests.unit.crawler.text_samples import CSV


def csv(content: str | bytes) -> Converted:
    raw = content.encode() if isinstance(content, str) else content
    return Csv(Settings()).convert(Source(filename="a.csv", content=raw))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    rows = [["name", "note"], ["Ada", "one"], ["Bob", "two"]]
    markdown = csv("\n".join(delimiter.join(row) for row in rows)).markdown
    assert markdown == "| name | note |\n|---|---|\n| Ada | one |\n| Bob | two |"


def test_columns_have_types_and_ranges_and_rows_are_counted() -> None:
    found = csv(CSV).metadata
    assert found["rows"] == 2
    assert found["columns"] == [
        {"name": "Region", "type": "text"},
        {"name": "Umsatz", "type": "number", "min": 7.25, "max": 1234.5},
        {"name": "Stand", "type": "date", "min": "2024-01-31", "max": "2024-02-29"},
    ]


def test_a_quoted_field_may_hold_delimiters_quotes_and_lines() -> None:
    assert csv('a,b\n"x, ""y""\nz",2\n').markdown.endswith('| x, "y" z | 2 |')


def test_the_line_in_which_a_spreadsheet_names_the_delimiter_is_no_row() -> None:
    assert csv("sep=;\na;b\n1,2;3\n").markdown == "| a | b |\n|---|---|\n| 1,2 | 3 |"


def test_a_quotation_mark_that_nobody_closes_does_not_swallow_the_rows() -> None:
    converted = csv('a,b\n1,"x\n' + "2,y\n" * 50_000)
    assert converted.metadata["rows"] == 50_001
    assert "quotation mark" in converted.warnings[0]


def test_a_tsv_has_only_tabs_between_its_cells() -> None:
    source = Source(filename="a.tsv", content=b"a,b\tc\n1,2\t3\n")
    assert Tsv(Settings()).convert(source).markdown == "| a,b | c |\n|---|---|\n| 1,2 | 3 |"


def test_a_web_page_under_the_name_of_a_table_is_no_table() -> None:
    assert not Csv(Settings()).accepts(Source(filename="a.csv", content=b"<!DOCTYPE html><p>Sign in"))


def test_a_table_from_an_address_without_a_suffix_is_known_by_its_media_type() -> None:
    assert Csv(Settings()).accepts(Source(filename="export", content=b"a,b", media_type="text/csv"))
