"""Rows as Markdown tables: headers, types, ranges."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

import pytest

from crawler.errors import DocumentTooLarge
from crawler.formats._tables import MAX_COLUMNS, Cell, Table

DAY = date(2024, 1, 2)
MIDNIGHT = datetime(2023, 1, 2)  # noqa: DTZ001  as spreadsheets have it
MORNING = datetime(2023, 1, 2, 3, 4)  # noqa: DTZ001  as spreadsheets have it


def column(*cells: Cell, decimal_comma: bool = False) -> dict[str, Any]:
    table = Table(header=["c"], decimal_comma=decimal_comma).extend([cell] for cell in cells)
    (found,) = table.columns()
    del found["name"]
    return found


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["3", "-7", "n/a", ""], {"type": "integer", "min": -7, "max": 3}),
        (["3", "2.5"], {"type": "number", "min": 2.5, "max": 3}),
        (["1,234,567.5", "2"], {"type": "number", "min": 2, "max": 1234567.5}),
        (["2024-02-29", "31.12.2023"], {"type": "date", "min": "2023-12-31", "max": "2024-02-29"}),
        (
            ["2024-01-01", "2024-01-01T10:00:00+02:00"],
            {"type": "datetime", "min": "2024-01-01", "max": "2024-01-01T10:00:00+02:00"},
        ),
        (["yes", "No", "true"], {"type": "boolean"}),
        (["007", "12"], {"type": "text"}),
        (["2024-02-30"], {"type": "text"}),
        (["12", "twelve"], {"type": "text"}),
        (["1234567890123456"], {"type": "text"}),
        (["=SUM(A1:A9)", "+1-555-0100", "@cmd"], {"type": "text"}),
        (["1,50 €", "12\u00a0€", "-", "1.200,00€"], {"type": "number", "min": 1.5, "max": 1200.0}),
        (["$1,200.00", "-$3.25", "$-4"], {"type": "number", "min": -4, "max": 1200.0}),
        (["EUR 5", "EUR 1.000.000"], {"type": "integer", "min": 5, "max": 1000000}),
        (["1,5 %", "-0,125 %", "20%"], {"type": "number", "min": -0.125, "max": 20}),
        (["5 €", "$5"], {"type": "text"}),
        (["5 %", "5"], {"type": "text"}),
        (["5", "5 %"], {"type": "text"}),
        (["1.200 €", "5 €"], {"type": "text"}),
        (["5 KGS", "007 €", "$5 €", "€"], {"type": "text"}),
        ([2.0, 3.0, None], {"type": "integer", "min": 2, "max": 3}),
        ([2.5, 10**20], {"type": "text"}),
        ([float("nan")], {"type": "text"}),
        ([True, False], {"type": "boolean"}),
        ([DAY, MIDNIGHT], {"type": "date", "min": "2023-01-02", "max": "2024-01-02"}),
        ([DAY, MORNING], {"type": "datetime", "min": "2023-01-02T03:04:00", "max": "2024-01-02"}),
        ([time(9, 30)], {"type": "text"}),
        ([], {"type": "text"}),
    ],
)  # fmt: skip
def test_a_column_is_of_the_type_of_all_its_cells_and_knows_its_range(
    cells: list[Cell], found: dict[str, Any]
) -> None:
    assert column(*cells) == found


def test_a_decimal_comma_is_read_where_it_is_used() -> None:
    assert column("1.234,5", "3,25", decimal_comma=True) == {"type": "number", "min": 3.25, "max": 1234.5}
    assert column("3,25") == {"type": "text"}
    prices = column("1.200 €", "3,255 €", decimal_comma=True)
    assert prices == {"type": "number", "min": 3.255, "max": 1200}


def test_the_first_row_of_names_is_the_header_and_what_stands_above_is_its_caption() -> None:
    table = Table().extend([["Sales"], [], ["Region", "2024", "2025"], ["North", "1.5", "2"], [None, ""]])
    assert table.markdown() == "Sales\n\n| Region | 2024 | 2025 |\n|---|---|---|\n| North | 1.5 | 2 |"
    assert (table.rows, [found["name"] for found in table.columns()]) == (1, ["Region", "2024", "2025"])


def test_a_share_is_a_column_s_name_over_something_else_and_a_value_over_shares() -> None:
    over_money = Table().extend([["Net", "7 %"], ["10 €", "0,70 €"]])
    assert [found["name"] for found in over_money.columns()] == ["Net", "7 %"]
    over_shares = Table().extend([["Ada", "7 %"], ["Bob", "9 %"]])
    assert [found["name"] for found in over_shares.columns()] == ["Column 1", "Column 2"]


def test_rows_without_a_header_get_numbered_columns() -> None:
    table = Table().extend([["Ada", "1815"], ["Bob", "1900"]])
    assert table.markdown().startswith("| Column 1 | Column 2 |\n|---|---|\n| Ada | 1815 |")
    assert table.rows == 2


def test_a_first_row_that_says_the_same_twice_is_no_header() -> None:
    table = Table().extend([["red", "red"], ["blue", "green"]])
    assert [found["name"] for found in table.columns()] == ["Column 1", "Column 2"]
    assert table.rows == 2


def test_a_cell_stays_one_cell_in_one_line_and_a_formula_is_text() -> None:
    table = Table(header=["a", "b"]).extend([["x|y\nz", '=HYPERLINK("http://x")'], [12.0, True]])
    assert table.markdown().split("\n")[2:] == ['| x\\|y z | =HYPERLINK("http://x") |', "| 12 | true |"]


def test_a_row_that_is_longer_than_the_header_loses_nothing() -> None:
    table = Table(header=["a"]).extend([["1", "2", "3"]])
    assert table.markdown() == "| a | Column 2 | Column 3 |\n|---|---|---|\n| 1 | 2 | 3 |"


def test_a_table_of_blank_rows_is_nothing() -> None:
    assert Table().extend([[], [""], [None, None]]).markdown() == ""


def test_a_table_with_too_many_columns_is_refused() -> None:
    with pytest.raises(DocumentTooLarge, match="columns"):
        Table().add(["x"] * (MAX_COLUMNS + 1))
