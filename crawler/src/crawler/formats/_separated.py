"""Separated values: what CSV and TSV share (RFC 4180, and what spreadsheets write instead)."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from crawler.contracts import Converted
from crawler.formats._tables import Table
from crawler.formats._text import decode

_SAMPLE_ROWS = 100
_SAMPLE_CHARACTERS = 65_536
_LONGEST_FIELD = 131_072
"""Characters. A longer one is more likely a quotation mark that nobody closed."""
_LONG_FIELD = (
    "A field is so long that a quotation mark may never be closed: quotation marks were read as ordinary "
    "characters. If rows are wrong, mend the file and upload it again."
)


def convert(content: bytes, delimiters: str) -> Converted:
    """The rows as one table, separated by that of ``delimiters`` that gives the steadiest columns.

    Raises:
        UnreadableDocument: It is not text.
        DocumentTooLarge: It is too wide or too long.
    """
    text, warnings = decode(content)
    delimiter = None
    first, _, rest = text.partition("\n")
    if first.lower().startswith("sep=") and len(first) == 5:  # a line that Excel writes and reads
        delimiter, text = first[4], rest
    delimiter = delimiter or _delimiter(text, delimiters)
    try:
        table = _read(text, delimiter, quoting=csv.QUOTE_MINIMAL, longest=_LONGEST_FIELD)
    except csv.Error:
        table = _read(text, delimiter, quoting=csv.QUOTE_NONE, longest=len(text))
        warnings = (*warnings, _LONG_FIELD)
    return Converted(
        markdown=table.markdown(),
        metadata={"columns": table.columns(), "rows": table.rows},
        warnings=warnings,
    )


def _read(text: str, delimiter: str, *, quoting: int, longest: int) -> Table:
    csv.field_size_limit(longest)
    rows = csv.reader(_lines(text), delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    return Table(decimal_comma=delimiter == ";").extend(rows)


def _delimiter(text: str, delimiters: str) -> str:
    """``csv.Sniffer`` takes time that grows with the square of the text, and guesses letters."""
    lines = list(itertools.islice(_lines(text[:_SAMPLE_CHARACTERS]), _SAMPLE_ROWS))
    if len(lines) > 1 and len(text) > _SAMPLE_CHARACTERS:
        lines.pop()  # it may be cut off

    def steadiness(delimiter: str) -> tuple[int, int]:
        widths = Counter(width for row in _sampled(lines, delimiter) if (width := len(row)) > 1)
        width, rows = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        return rows, width

    return max(delimiters, key=steadiness)


def _sampled(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return [line.split(delimiter) for line in lines]


def _lines(text: str) -> Iterator[str]:
    """The lines one by one, with their ends: a quoted field may go on in the next."""
    start = 0
    while start < len(text):
        stop = text.find("\n", start) + 1 or len(text)
        yield text[start:stop]
        start = stop
