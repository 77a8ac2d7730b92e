"""Workbooks: xlsx, xls and ods."""

from __future__ import annotations

import pytest

from crawler.contracts import Converted, Source
from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats.ods import Ods
from crawler.formats.xls import Xls
from crawler.formats.xlsx import Xlsx
from crawler.settings import Settings
from tests.unit.crawler.packages import open_document, package, rows, xlsx
from tests.unit.crawler.samples import compound_file, real

FORMATS = {"rates.xlsx": Xlsx(Settings()), "rates.xls": Xls(Settings()), "rates.ods": Ods(Settings())}


def converted(content: bytes) -> Converted:
    return Xlsx(Settings()).convert(Source(filename="book.xlsx", content=content))


def real_one(name: str) -> Converted:
    return FORMATS[name].convert(Source(filename=name, content=real(name)))


@pytest.mark.parametrize("name", FORMATS)
def test_each_sheet_is_a_heading_and_a_table(name: str) -> None:
    headings = [line for line in real_one(name).markdown.splitlines() if line.startswith("#")]
    assert headings == ["## Rates", "## Deadlines", "## Notes"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_hidden_sheet_is_read_and_named_in_a_warning(name: str) -> None:
    result = real_one(name)
    assert "Kept by the travel desk" in result.markdown
    assert result.warnings == ("Hidden sheets were read too: Notes.",)


@pytest.mark.parametrize("name", FORMATS)
def test_sheets_tell_their_rows_columns_types_and_ranges(name: str) -> None:
    rates, deadlines, empty, _ = real_one(name).metadata["sheets"]
    assert (rates["name"], rates["rows"]) == ("Rates", 3)
    assert rates["columns"][1] == {"name": "Daily rate", "type": "integer", "min": 28, "max": 64}
    assert rates["columns"][3] == {"name": "Since", "type": "date", "min": "2022-04-01", "max": "2024-01-01"}
    assert deadlines["rows"] == 2
    assert empty == {"name": "Empty", "rows": 0, "columns": []}


@pytest.mark.parametrize("name", FORMATS)
def test_bars_and_line_breaks_do_not_break_a_row_and_formulas_stay_text(name: str) -> None:
    assert r"| a \| b | line one line two | =1+1 |" in real_one(name).markdown


def test_a_cell_that_is_merged_downwards_stands_in_each_of_its_rows() -> None:
    merged = '<mergeCells count="1"><mergeCell ref="B3:B4"/></mergeCells>'
    sheet = rows("", ",Kind,Item", ",fruit,apple", ",,pear", ",nut,hazel") + merged
    assert converted(xlsx(sheet)).markdown.splitlines()[-3:] == [
        "| fruit | apple |",
        "| fruit | pear |",
        "| nut | hazel |",
    ]


def test_a_workbook_without_cells_is_empty() -> None:
    assert converted(xlsx(rows(), rows())).markdown == ""


def test_a_workbook_that_says_that_it_unpacks_to_gigabytes_is_refused() -> None:
    content = bytearray(xlsx(rows("a,b", "1,2")))
    entry = content.rfind(b"PK\x01\x02", 0, content.rfind(b"xl/worksheets/sheet1.xml"))
    content[entry + 24 : entry + 28] = (3 * 2**30).to_bytes(4, "little")
    with pytest.raises(DocumentTooLarge):
        converted(bytes(content))


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (compound_file("EncryptionInfo", "EncryptedPackage"), "Remove the password"),
        (xlsx(rows("a,b"))[:400], "save it again"),
        (package({"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<x"}), "save it again"),
    ],
    ids=["encrypted", "cut off", "broken"],
)
def test_a_workbook_that_cannot_be_read_says_what_to_do(content: bytes, advice: str) -> None:
    assert Xlsx(Settings()).accepts(Source(filename="book.xlsx", content=content))
    with pytest.raises(UnreadableDocument, match=advice):
        converted(content)


def test_an_encrypted_spreadsheet_says_what_to_do() -> None:
    content = open_document("spreadsheet", "", manifest="<manifest:encryption-data/>")
    with pytest.raises(UnreadableDocument, match="Remove the password"):
        Ods(Settings()).convert(Source(filename="book.ods", content=content))


def test_a_broken_old_workbook_says_what_to_do() -> None:
    content = compound_file("Workbook")
    assert Xls(Settings()).accepts(Source(filename="book", content=content))
    with pytest.raises(UnreadableDocument, match="save it again"):
        Xls(Settings()).convert(Source(filename="book.xls", content=content))


def test_an_old_workbook_tells_its_properties() -> None:
    metadata = real_one("rates.xls").metadata
    assert (metadata["title"], metadata["author"]) == ("Travel rates", "Ada Lovelace")
    assert metadata["created_at"].startswith("2024-03-01T09:30")
