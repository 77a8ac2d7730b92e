"""Small files of the kinds that are text: what each format says of itself, and what must come out of it."""

from __future__ import annotations

import json

CSV = "Region;Umsatz;Stand\nNord;1.234,50;2024-01-31\nSüd;7,25;2024-02-29\n"
TSV = "city\trate\nBerlin\t28\nBonn\t24\n"
ORDERS = {
    "title": "Orders",
    "orders": [
        {"id": 7, "customer": "Ada", "total": 12.50, "lines": [1, 2]},
        {"id": 8, "customer": "Bob | Co", "total": 3, "paid": True},
    ],
    "shop": {"city": "Berlin", "opening": {"monday": "9-17"}, "note": "first line\nsecond line"},
    "tags": ["new", "urgent"],
}
JSONL = '{"id": 1, "city": "Berlin"}\n{"id": 2, "city": "Bonn"}\n'
XML = """<?xml version="1.0" encoding="UTF-8"?>
<catalog owner="Ada">
  <book><title>Travel</title><price>12.50</price></book>
  <book><title>Leave</title><price>7</price></book>
  <note>See <ref target="a.html">the page</ref> for more.</note>
</catalog>
"""
PYTHON = '''"""Leave of absence."""
import datetime
from decimal import Decimal

LIMIT = 30


class Leave:
    """A request."""

    # How long it is.
    @property
    def days(self) -> int:
        return 3


def main() -> None:
    print("class Wrong: ```")


if __name__ == "__main__":
    main()
'''
NOTEBOOK = {
    "nbformat": 4,
    "metadata": {"kernelspec": {"language": "python"}, "title": "Revenue"},
    "cells": [
        {"cell_type": "markdown", "source": ["# Revenue\n", "By region."]},
        {
            "cell_type": "code",
            "source": "print(6 * 7)",
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["42\n"]},
                {"output_type": "display_data", "data": {"image/png": "AAAA", "text/plain": "<Figure>"}},
                {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": ["\x1b[31mlong"]},
            ],
        },
    ],
}

TEXT_SAMPLES: dict[str, tuple[str, bytes, str]] = {
    "csv": ("sales.csv", CSV.encode(), "| Nord | 1.234,50 | 2024-01-31 |"),
    "tsv": ("rates.tsv", TSV.encode(), "| Berlin | 28 |"),
    "json": ("orders.json", json.dumps(ORDERS, indent=2).encode(), "| 8 | Bob \\| Co | 3 |"),
    "jsonl": ("cities.jsonl", JSONL.encode(), "| 2 | Bonn |"),
    "xml": ("catalog.xml", XML.encode(), "| Leave | 7 |"),
    "code": (
        "leave.py",
        PYTHON.encode(),
        "### function days\n\n```python\n    # How long it is.\n    @property",
    ),
    "ipynb": ("revenue.ipynb", json.dumps(NOTEBOOK).encode(), "```python\nprint(6 * 7)\n```"),
}
"""For each format: file name, bytes, and what must be in its Markdown."""
