"""What each format keeps of a file whose contents are known, as the table of ``docs/formats.md``.

``python -m tests.support.kept`` writes the table anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from crawler.contracts import Converted, Format, Source
from crawler.registry import find, settings_type
from tests.fixtures.formats.known import KNOWN, Known

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "formats.md"
FILES = ROOT / "tests" / "fixtures" / "formats"
BEGIN, END = "<!-- kept: measured by tests/support/kept.py -->\n", "<!-- end of kept -->"
HEADER = (
    "Format",
    "Headings",
    "Tables",
    "Cells",
    "Lists",
    "Links",
    "Order",
    "Pages",
    "Properties",
    "Columns",
    "Images",
    "Attachments",
)
_HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
_DIVIDER = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
_MARK = re.compile(r"^\s*(?:[-*+]|\d+[.)]) (.*)$", re.MULTILINE)


def convert(name: str) -> Converted:
    plugin = find("crawler.formats", Format, name.partition(",")[0])  # type: ignore[type-abstract]
    file = FILES / KNOWN[name].file
    source = Source(filename=file.name, content=file.read_bytes(), with_images=True)
    converted: Converted = plugin(settings_type(plugin)()).convert(source)
    return converted


def measure(name: str) -> list[str]:
    """The row of a format: of each thing, how many of how many are kept; ``-`` where its file has none."""
    known, converted = KNOWN[name], convert(name)
    markdown = converted.markdown
    tables = [_cells_kept(table, _tables(markdown)) for table in known.tables]
    sizes = [sum(map(len, table)) for table in known.tables]
    items = {match.strip() for match in _MARK.findall(markdown)}
    found = [
        (_headings_kept(known, markdown), len(known.headings)),
        (sum(kept == size for kept, size in zip(tables, sizes, strict=True)), len(sizes)),
        (sum(tables), sum(sizes)),
        (sum(item in items for item in known.items), len(known.items)),
        (sum(f"]({link})" in markdown for link in known.links), len(known.links)),
        (_in_order(known.order, markdown), len(known.order)),
        (sum(_page_of(converted, text) == page for text, page in known.pages.items()), len(known.pages)),
        (_properties_kept(known, converted), len(known.properties)),
        (_columns_kept(known, converted), sum(map(len, known.columns.values()))),
        (min(len(converted.images), known.images), known.images),
        (
            sum(name in {each.filename for each in converted.attachments} for name in known.attachments),
            len(known.attachments),
        ),
    ]
    return [f"{kept}/{all_}" if all_ else "-" for kept, all_ in found]


def table() -> str:
    """The table, in Markdown."""
    rows = [HEADER, tuple("---" for _ in HEADER), *((f"`{name}`", *measure(name)) for name in KNOWN)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def written() -> str:
    """The table as the page has it."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


def _headings_kept(known: Known, markdown: str) -> int:
    found = [(len(marks), text.strip()) for marks, text in _HEADING.findall(markdown)]
    return sum(found.count(heading) >= known.headings.count(heading) for heading in known.headings)


def _tables(markdown: str) -> list[list[list[str]]]:
    tables: list[list[list[str]]] = []
    before = ""
    for line in markdown.splitlines():
        if _DIVIDER.fullmatch(line.strip()):
            tables.append([_split(before)])
        elif tables and line.startswith("|") and before.startswith("|"):
            tables[-1].append(_split(line))
        before = line
    return tables


def _split(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [cell.strip().replace("\\|", "|") for cell in cells]


def _cells_kept(expected: Sequence[Sequence[object]], tables: list[list[list[str]]]) -> int:
    """Cells with the right text at the right place, in the table that has most of them."""
    return max(
        (
            sum(
                cell == _shown(value)
                for row, values in zip(table, expected, strict=False)
                for cell, value in zip(row, values, strict=False)
            )
            for table in tables
        ),
        default=0,
    )


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _in_order(sentences: Sequence[str], markdown: str) -> int:
    kept, position = 0, -1
    for sentence in sentences:
        found = markdown.find(sentence, position + 1)
        if found >= 0:
            kept, position = kept + 1, found
    return kept


def _page_of(converted: Converted, text: str) -> int | None:
    place = converted.markdown.find(text)
    return max((page.number for page in converted.pages if page.start <= place), default=None)


def _properties_kept(known: Known, converted: Converted) -> int:
    kept = 0
    for key, expected in known.properties.items():
        value = converted.metadata.get(key)
        if key == "keywords":
            kept += set(re.findall(r"\w+", str(value))) == set(re.findall(r"\w+", str(expected)))
        else:
            kept += value == expected or (key in _BEGINNINGS and str(value).startswith(str(expected)))
    return kept


_BEGINNINGS = {"created_at", "modified_at", "language"}


def _columns_kept(known: Known, converted: Converted) -> int:
    sheets = converted.metadata.get("sheets") or [
        {"name": "", "columns": converted.metadata.get("columns", [])}
    ]
    types = {sheet["name"]: [column["type"] for column in sheet["columns"]] for sheet in sheets}
    return sum(
        found == expected
        for name, columns in known.columns.items()
        for found, expected in zip(types.get(name, []), columns, strict=False)
    )


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
