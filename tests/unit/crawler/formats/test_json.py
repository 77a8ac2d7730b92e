"""JSON and JSON lines: readable, and without loss."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.contracts import Converted, Source
from crawler.errors import UnreadableDocument
from crawler.formats.json import Json
from crawler.formats.jsonl import Jsonl
from crawler.settings import Settings
from tests.unit.crawler.text_samples import ORDERS

words = st.text("abcäxyz019", min_size=1, max_size=12)
values = st.recursive(
    words | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=30,
)


def read(text: str) -> Converted:
    return Json(Settings()).convert(Source(filename="a.json", content=text.encode()))


def lines(text: str) -> Converted:
    return Jsonl(Settings()).convert(Source(filename="a.jsonl", content=text.encode()))


def leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(leaf for item in value.values() for leaf in leaves(item))]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value if isinstance(value, str) else json.dumps(value)] if value is not None else []


def test_objects_are_sections_and_arrays_of_objects_are_tables() -> None:
    markdown = read(json.dumps(ORDERS)).markdown
    assert markdown.startswith("- **title**: Orders\n\n# orders\n\n| id | customer | total | lines | paid |")
    assert "# shop\n\n- **city**: Berlin\n\n## opening\n\n- **monday**: 9-17" in markdown
    assert "## note\n\n```\nfirst line\nsecond line\n```" in markdown


@given(value=values)
def test_no_key_and_no_value_is_lost(value: Any) -> None:
    markdown = read(json.dumps(value)).markdown
    assert [leaf for leaf in leaves(value) if leaf not in markdown] == []


def test_numbers_keep_their_digits() -> None:
    markdown = read('{"price": 1.10, "huge": 1e400, "long": 12345678901234567890123}').markdown
    assert markdown == "- **price**: 1.10\n- **huge**: 1e400\n- **long**: 12345678901234567890123"


def test_a_key_that_stands_twice_keeps_both_values() -> None:
    assert read('{"a": 1, "a": 2}').markdown == "# a\n\n- 1\n- 2"


def test_the_shape_is_told() -> None:
    shape = read(json.dumps(ORDERS)).metadata["shape"]
    assert shape["type"] == "object"
    assert list(shape["properties"]) == ["title", "orders", "shop", "tags"]
    assert shape["properties"]["tags"] == {"type": "array", "length": 2, "items": {"type": "string"}}


def test_a_table_of_objects_tells_its_columns() -> None:
    found = read('[{"id": 1, "day": "2024-01-02"}, {"id": 9}]').metadata
    assert found["rows"] == 2
    assert found["columns"][0] == {"name": "id", "type": "integer", "min": 1, "max": 9}
    assert found["columns"][1]["type"] == "date"


def test_what_is_not_json_is_refused_with_its_line() -> None:
    with pytest.raises(UnreadableDocument, match="line 2, column 2"):
        read('{"a": 1,\n x}')


def test_objects_that_lie_too_deep_are_refused() -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, '{"a":' * 900 + "1" + "}" * 900):
        with pytest.raises(UnreadableDocument):
            read(text)


def test_json_lines_are_rows_under_either_name() -> None:
    text = '{"id": 1, "city": "Bonn"}\n{"id": 2, "tags": ["a", "b"]}\n'
    table = '| id | city | tags |\n|---|---|---|\n| 1 | Bonn |\n| 2 |  | ["a", "b"] |'
    assert lines(text).markdown == read(text).markdown == table
    assert lines(text).metadata["rows"] == 2


def test_long_objects_in_lines_are_sections() -> None:
    markdown = lines(json.dumps({"id": 7, "text": "word " * 100})).markdown
    assert markdown.startswith("# 1: 7\n\n- **id**: 7\n- **text**: word word")


def test_a_broken_line_costs_no_other() -> None:
    converted = lines('{"id": 1}\n{"id": \n{"id": 3}\n')
    assert "2" in converted.warnings[0]
    assert '{"id":' in converted.markdown
    assert converted.metadata["rows"] == 3
    with pytest.raises(UnreadableDocument):
        lines("no\njson\n")
