"""Texts that are made to take long: each is read, or refused in words, within its child's limits."""

from __future__ import annotations

from typing import Any

import pytest

from crawler.contracts import Format, Source
from crawler.conversion import Limits, convert
from crawler.errors import CrawlError
from crawler.formats.code import Code
from crawler.formats.csv import Csv
from crawler.formats.ipynb import Ipynb
from crawler.formats.json import Json
from crawler.formats.jsonl import Jsonl
from crawler.formats.text import Text
from crawler.formats.xml import Xml
from crawler.settings import Settings

LIMITS = Limits(timeout_s=300, cpu_s=120)
"""What takes time in proportion to its length needs a few seconds; what takes its square, hours."""
MIB = 2**20

READ: list[tuple[type[Format[Any]], str, bytes]] = [
    (Text, "line.txt", b"x" * (100 * MIB // 4)),
    (Csv, "quotes.csv", b'"' * (8 * MIB)),
    (Csv, "open.csv", b'a,b\n"' + b"x,\n" * (2 * MIB)),
    (Csv, "mixed.csv", b"a;b,c|d\te\n" * (MIB // 4)),
    (Json, "wide.json", b"[" + b"1," * MIB + b"1]"),
    (Json, "number.json", b"1" * (8 * MIB)),
    (Jsonl, "nothing.jsonl", b"{}\n" * MIB),
    (Xml, "attributes.xml", b"<r " + b" ".join(b'a%d="1"' % n for n in range(100_000)) + b"/>"),
    (Xml, "mixed.xml", b"<r>" + b"<a/>x<b/>" * 100_000 + b"</r>"),
    (Code, "line.js", b"{" * (4 * MIB)),
    (Code, "quotes.js", b'"\\' * 900_000),
    (Code, "lines.c", b"int int int int int int int int int(\n" * 30_000),
    (Code, "nested.py", b"(" * 100_000),
    (Code, "deep.py", b"".join(b" " * n + b"class A:\n" for n in range(1_000))),
]
REFUSED: list[tuple[type[Format[Any]], str, bytes]] = [
    (Csv, "wide.csv", b"," .join([b"x"] * 100_000)),
    (Json, "deep.json", b"[" * (8 * MIB)),
    (Json, "broken.json", b'{"a":\n' * MIB),
    (Xml, "deep.xml", b"<a>" * MIB),
    (Xml, "open.xml", b"<!--" + b"-x" * (4 * MIB)),
    (Ipynb, "deep.ipynb", b'{"cells":' * MIB),
]  # fmt: skip


@pytest.mark.parametrize(
    ("format_", "filename", "content"), READ, ids=lambda v: v if isinstance(v, str) else ""
)
async def test_a_text_that_is_made_to_take_long_is_read_within_the_limits(
    format_: type[Format[Any]], filename: str, content: bytes
) -> None:
    converted = await convert(format_(Settings()), Source(filename=filename, content=content), LIMITS)
    assert converted.markdown


@pytest.mark.parametrize(
    ("format_", "filename", "content"), REFUSED, ids=lambda v: v if isinstance(v, str) else ""
)
async def test_what_cannot_be_read_is_refused_by_its_format_and_not_by_the_limits(
    format_: type[Format[Any]], filename: str, content: bytes
) -> None:
    with pytest.raises(CrawlError) as refused:
        await convert(format_(Settings()), Source(filename=filename, content=content), LIMITS)
    assert "upload" in refused.value.message
    assert "limits of memory or time" not in refused.value.message
    assert "took longer" not in refused.value.message
