"""Workbooks of any kind: a heading and a table for each sheet. The one place that knows calamine."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crawler.contracts import Converted
from crawler.errors import UnreadableDocument
from crawler.formats._package import ENCRYPTED
from crawler.formats._tables import Cell, Table

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

_BROKEN = "The workbook is damaged or incomplete. Open it in its own program, save it again and upload that."
_MAX_SHEETS = 500


def read(content: bytes, properties: dict[str, Any]) -> Converted:
    """Each sheet with cells as ``## name`` and a table of its values, in the workbook's order.

    A cell that is merged downwards stands in each of its rows; formulas are the values that were last
    computed; hidden sheets are read too, and named in a warning.

    Args:
        content: The workbook.
        properties: The file's own; ``sheets`` and ``table_count`` are added.

    Raises:
        UnreadableDocument: It is damaged or encrypted.
        DocumentTooLarge: A sheet has too many columns, or too much text.
    """
    from python_calamine import (
        CalamineError,
        CalamineWorkbook,
        PasswordError,
        SheetTypeEnum,
        SheetVisibleEnum,
    )

    parts: list[str] = []
    sheets: list[dict[str, Any]] = []
    warnings: list[str] = []
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
        if not workbook.sheet_names:  # there is no workbook without one
            raise UnreadableDocument(_BROKEN)
        known = [sheet for sheet in workbook.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
        for sheet in known[:_MAX_SHEETS]:
            table = Table().extend(_rows(workbook.get_sheet_by_name(sheet.name)))
            markdown = table.markdown()
            if markdown:
                parts.append(f"## {' '.join(sheet.name.split())}\n\n{markdown}")
            sheets.append({"name": sheet.name, "rows": table.rows, "columns": table.columns()})
    except PasswordError as error:
        raise UnreadableDocument(ENCRYPTED) from error
    except (CalamineError, OSError, ValueError) as error:
        raise UnreadableDocument(_BROKEN) from error
    hidden = [sheet.name for sheet in known if sheet.visible != SheetVisibleEnum.Visible]
    if hidden:
        warnings.append(f"Hidden sheets were read too: {', '.join(hidden[:10])}.")
    if len(known) > _MAX_SHEETS:
        warnings.append(f"Only the first {_MAX_SHEETS} of {len(known)} sheets were read.")
    metadata = {**properties, "sheets": sheets}
    if parts:
        metadata["table_count"] = len(parts)
    return Converted(
        markdown="\n\n".join(parts),
        metadata=metadata,
        warnings=tuple(warnings),
    )


def _rows(sheet: CalamineSheet) -> Iterator[list[Cell]]:
    """The rows, a cell that is merged downwards repeated in each row that it reaches."""
    _, left = sheet.start or (0, 0)  # rows come from the first of the sheet, columns from the first used
    beginning: dict[int, list[tuple[int, int]]] = {}
    for (first, column), (last, _) in sheet.merged_cell_ranges or ():
        if last > first and column >= left:
            beginning.setdefault(first, []).append((column - left, last))
    open_: dict[int, tuple[int, Cell]] = {}
    for number, values in enumerate(sheet.iter_rows()):
        row: list[Cell] = list(values)
        for column, (last, value) in list(open_.items()):
            if number > last:
                del open_[column]
            elif row[column] == "":
                row[column] = value
        for column, last in beginning.get(number, ()):
            if column < len(row):
                open_[column] = (last, row[column])
        yield row
