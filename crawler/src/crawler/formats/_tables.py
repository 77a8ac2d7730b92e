"""Rows of cells as a Markdown table, with the type and range of each column; for every format that has rows.

Cells are data: a formula stays the text that it is. Time and memory are linear in what comes in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from crawler.errors import DocumentTooLarge
from crawler.formats._markdown import table_row

Cell: TypeAlias = object
"""None, text, a number, a truth value, a date or a time; anything else is its ``str()``."""
ColumnType = Literal["integer", "number", "date", "datetime", "boolean", "text"]

MAX_COLUMNS = 16_384
"""As many as a spreadsheet can have."""
MAX_CHARACTERS = 80_000_000
"""Of one document's Markdown: more would be more passages than a document may have."""
MAX_DESCRIBED = 200
"""Columns whose type is told."""
MAX_NAME = 120
"""Characters of a column's name, where its type is told."""

_LOOK_AHEAD = 20
"""Rows that are looked at to find the header."""
_MISSING = frozenset({"", "-", "n/a", "na", "nan", "null", "none"})
_BOOLEANS = frozenset({"true", "false", "yes", "no"})
_LONGEST_VALUE = 40
# More digits are an identifier, and so is a number that begins with a zero.
_INTEGER = re.compile(r"[+-]?(?:0|[1-9]\d{0,14})", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d{0,14})?\.\d{1,15}(?:[eE][+-]?\d{1,2})?", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_DAY = re.compile(r"(\d{4})[-/](\d{2})[-/](\d{2})", re.ASCII)
_GERMAN_DAY = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", re.ASCII)
_MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII
)
_SWAP = str.maketrans(",.", ".,")

# Money and shares: the unit before or behind the number, a sign before the one or the other.
_WITH_UNIT = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<before>[$€£¥₹]|[A-Z]{3}(?=\s))\s?(?=[0-9.+-]))?(?P<inner>[+-]?)"
    r"(?P<number>[0-9.][0-9.,]*)(?:\s?(?P<behind>[$€£¥₹%]|(?<=\s)[A-Z]{3}))?"
)
_CODES = "AUD BRL CAD CHF CNY CZK DKK EUR GBP HUF INR JPY MXN NOK NZD PLN SEK USD"
_CURRENCIES = frozenset(_CODES.split())
_DECIMAL_COMMA = re.compile(
    r"\d+,\d{1,2}|0,\d{3,15}|\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,3}(?:\.\d{3}){2,}", re.ASCII
)
"""What can be written with a decimal comma only."""
_EITHER_MARK = re.compile(r"[1-9]\d{0,2}\.\d{3}", re.ASCII)
"""A thousand and more to some, and a little over one to others."""


class _Typed(NamedTuple):
    """A cell's type, what it is compared by, how it is told in JSON, and its unit."""

    type: ColumnType
    key: Any = None
    shown: Any = None
    unit: str = ""


_TEXT = _Typed("text")


@dataclass(slots=True)
class _Column:
    type: ColumnType | None = None
    unit: str = ""
    low: tuple[Any, Any] | None = None
    high: tuple[Any, Any] | None = None

    def add(self, typed: _Typed) -> None:
        kind, key, shown, unit = typed
        joined = _JOINED.get((self.type, kind), "text") if self.type and self.type != kind else kind
        if self.type and unit != self.unit:
            joined = "text"
        self.unit = unit
        if joined in {"text", "boolean"}:
            self.low = self.high = None
        else:
            if self.low is None or key < self.low[0]:
                self.low = (key, shown)
            if self.high is None or key > self.high[0]:
                self.high = (key, shown)
        self.type = joined


_JOINED: dict[tuple[ColumnType, ColumnType], ColumnType] = {
    ("integer", "number"): "number",
    ("number", "integer"): "number",
    ("date", "datetime"): "datetime",
    ("datetime", "date"): "datetime",
}


class Table:
    """Takes rows one by one; the first that looks like one is the header.

    Blank rows are left out. Leading rows with a single cell, above a wider table, are its caption.

    Args:
        header: The names of the columns, where they are known; all rows are data then.
        decimal_comma: Whether numbers are written ``1.234,5``.
    """

    def __init__(self, *, header: Sequence[str] | None = None, decimal_comma: bool = False) -> None:
        self.rows = 0
        """Without the header."""
        self.header: list[str] | None = None if header is None else [cell_text(name) for name in header]
        self._decimal_comma = decimal_comma
        self._first: list[Sequence[Cell]] = []
        self._captions: list[str] = []
        self._lines: list[str] = []
        self._columns = [_Column() for _ in self.header or ()]
        self._settled = header is not None
        self._size = 0

    def extend(self, rows: Iterable[Sequence[Cell]]) -> Table:
        """Add rows, and be this table.

        Raises:
            DocumentTooLarge: It has too many columns, or too much text.
        """
        for row in rows:
            self.add(row)
        return self

    def add(self, row: Sequence[Cell]) -> None:
        """Add a row; see :meth:`extend`."""
        width = len(row)
        while width and (row[width - 1] is None or row[width - 1] == ""):
            width -= 1
        if width > MAX_COLUMNS:
            raise DocumentTooLarge(
                f"The table has more than {MAX_COLUMNS:,} columns. Split it and upload the parts."
            )
        if not width:
            return
        if self._settled:
            self._take(row[:width])
            return
        self._first.append(row[:width])
        if len(self._first) == _LOOK_AHEAD:
            self._settle()

    def markdown(self) -> str:
        """The caption, and a pipe table (https://github.github.com/gfm/#tables-extension-); or nothing."""
        self._settle()
        captions = "".join(f"{caption}\n\n" for caption in self._captions)
        if not self._columns:
            return captions.rstrip("\n")
        head = f"{table_row(self._names())}\n|{'---|' * len(self._columns)}"
        return captions + "\n".join([head, *self._lines])

    def columns(self) -> list[dict[str, Any]]:
        """``name``, ``type`` and, of numbers and dates, ``min`` and ``max``, for the first 200 columns."""
        self._settle()
        found = []
        for name, column in zip(self._names()[:MAX_DESCRIBED], self._columns, strict=False):
            described: dict[str, Any] = {"name": name[:MAX_NAME], "type": column.type or "text"}
            if column.low and column.high:
                described |= {"min": column.low[1], "max": column.high[1]}
            found.append(described)
        return found

    def _names(self) -> list[str]:
        given = self.header or []
        given = given + [""] * (len(self._columns) - len(given))
        return [name or f"Column {number}" for number, name in enumerate(given, start=1)]

    def _settle(self) -> None:
        """Find caption and header among the first rows."""
        if self._settled:
            return
        self._settled = True
        rows, self._first = self._first, []
        width = max(map(len, rows), default=0)
        while width > 1 and len(rows) > 1 and sum(cell not in (None, "") for cell in rows[0]) == 1:
            self._captions.append(" ".join(filter(None, map(cell_text, rows.pop(0)))))
        if rows and self._is_header(rows[0], rows[1] if len(rows) > 1 else (), width):
            self.header = [cell_text(cell) for cell in rows.pop(0)]
            self._columns = [_Column() for _ in self.header]
        for row in rows:
            self._take(row)

    def _is_header(self, row: Sequence[Cell], below: Sequence[Cell], width: int) -> bool:
        """Whether these are names: texts, no two the same; or years, days and ``5 %`` over something else."""
        names = [cell_text(cell) for cell in row]
        given = [name for name in names if name]
        if len(given) * 2 < width or len(set(given)) < len(given):
            return False
        texts = 0
        for index, cell in enumerate(row):
            found = self._type(cell)
            if found is None or found.type == "text":
                texts += found is not None
                continue
            under = self._type(below[index]) if index < len(below) else None
            if under is None or not _may_be_name(found, under):
                return False
        return texts > 0

    def _take(self, row: Sequence[Cell]) -> None:
        columns = self._columns
        while len(columns) < len(row):
            columns.append(_Column())
        texts = []
        for column, cell in zip(columns, row, strict=False):
            texts.append(cell_text(cell))
            if column.type != "text" and (typed := self._type(cell)):
                column.add(typed)
        line = table_row(texts)
        self.rows += 1
        self._lines.append(line)
        self._size += len(line)
        if self._size > MAX_CHARACTERS:
            raise DocumentTooLarge

    def _type(self, cell: Cell) -> _Typed | None:
        """None for a cell that says nothing."""
        if cell is None:
            return None
        if isinstance(cell, str):
            return _type_of_text(cell, decimal_comma=self._decimal_comma)
        return _type_of_value(cell)


def cell_text(cell: Cell) -> str:
    """A cell in one line."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, datetime):
        moment = cell.isoformat(sep=" ")
        return moment.removesuffix(" 00:00:00")
    return " ".join(str(cell).split())


def _may_be_name(typed: _Typed, under: _Typed) -> bool:
    if typed.unit:
        return typed.unit != under.unit
    return _is_time(typed) and not _is_time(under)


def _is_time(typed: _Typed) -> bool:
    if typed.unit:
        return False
    return typed.type in {"date", "datetime"} or (typed.type == "integer" and 1900 <= typed.key <= 2100)


def _type_of_value(cell: object) -> _Typed:
    if isinstance(cell, bool):
        return _Typed("boolean")
    if isinstance(cell, int | float):
        if cell != cell or abs(cell) >= 1e15:  # the first: not a number
            return _TEXT
        whole = int(cell) == cell
        return _Typed("integer", int(cell), int(cell)) if whole else _Typed("number", cell, cell)
    if isinstance(cell, datetime) and (cell.hour, cell.minute, cell.second, cell.microsecond) != (0, 0, 0, 0):
        return _Typed("datetime", _instant(cell), cell.isoformat())
    if isinstance(cell, date):
        day = datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001  days have no zone
        return _Typed("date", _instant(day), day.date().isoformat())
    return _TEXT


def _type_of_text(cell: str, *, decimal_comma: bool) -> _Typed | None:
    text = cell.strip()
    lowered = text.lower() if len(text) <= 5 else text
    if lowered in _MISSING:
        return None
    if len(text) > _LONGEST_VALUE:
        return _TEXT
    if lowered in _BOOLEANS:
        return _Typed("boolean")
    if text.isascii() and (text[0].isdigit() or text[0] in "+-."):
        found = _type_of_number(text, decimal_comma=decimal_comma) or _type_of_time(text)
        if found.type != "text":
            return found
    return _type_with_unit(text, decimal_comma=decimal_comma)


def _type_of_number(text: str, *, decimal_comma: bool) -> _Typed | None:
    if _INTEGER.fullmatch(text):
        return _Typed("integer", int(text), int(text))
    swapped = text.translate(_SWAP) if decimal_comma else text
    if _NUMBER.fullmatch(swapped) or (_GROUPED.fullmatch(swapped) and len(swapped) <= 20):
        value = float(swapped.replace(",", ""))
        whole = "." not in swapped
        return _Typed("integer", int(value), int(value)) if whole else _Typed("number", value, value)
    return _Typed("number", float(text), float(text)) if _NUMBER.fullmatch(text) else None


def _type_with_unit(text: str, *, decimal_comma: bool) -> _Typed:
    """Of money and shares; text where the decimal mark is not sure: no range is better than a wrong one."""
    match = _WITH_UNIT.fullmatch(text)
    unit = (match["before"] or match["behind"]) if match else None
    if not match or not unit or (match["before"] and match["behind"]):
        return _TEXT
    number = match["number"]
    sure = decimal_comma or not _EITHER_MARK.fullmatch(number)
    if not sure or (len(unit) == 3 and unit not in _CURRENCIES):
        return _TEXT
    comma = decimal_comma or _DECIMAL_COMMA.fullmatch(number) is not None
    found = _type_of_number(match["sign"] + match["inner"] + number, decimal_comma=comma)
    return found._replace(unit=unit) if found else _TEXT


def _type_of_time(text: str) -> _Typed:
    try:
        if match := _DAY.fullmatch(text):
            year, month, day = map(int, match.groups())
            return _type_of_value(date(year, month, day))
        if match := _GERMAN_DAY.fullmatch(text):
            day, month, year = map(int, match.groups())
            return _type_of_value(date(year, month, day))
        if _MOMENT.fullmatch(text):
            moment = datetime.fromisoformat(text)
            return _Typed("datetime", _instant(moment), moment.isoformat())
    except (ValueError, OverflowError):  # the 31st of February, the hour before the year 1
        pass
    return _TEXT


def _instant(moment: datetime) -> datetime:
    """Comparable with any other: what names no zone counts as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
