"""JSON values as Markdown: objects as sections, arrays of objects as tables; no value is lost.

RFC 8259. Numbers keep the digits that they were written with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats._tables import MAX_CHARACTERS, Table
from crawler.formats._text import fence

MAX_DEPTH = 200
_MAX_LEVEL = 6
_MAX_TABLE_COLUMNS = 64
_LONGEST_CELL = 300
"""Characters. An object with a longer value, or with more keys, is a section instead of a row."""
_SHAPE_KEYS = 50
_SHAPE_DEPTH = 3
_NAMES = ("name", "title", "id", "key")
_TOO_DEEP = "The file's objects lie too deep in each other. Split it and upload the parts."


class Number:
    """A number as it was written."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def loads(text: str) -> Any:
    """The value; keys that an object has twice hold a list of their values.

    Raises:
        UnreadableDocument: It is nested too deeply.
        json.JSONDecodeError: It is not JSON.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_int=Number, parse_float=Number, parse_constant=Number
        )
    except RecursionError as error:
        raise UnreadableDocument(_TOO_DEEP) from error


def lines(text: str) -> tuple[list[Any], list[int]]:
    """The values of JSON lines (https://jsonlines.org), and the numbers of the lines that are not JSON.

    Such a line is a value as well: its text.
    """
    values, wrong = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append(loads(line))
        except json.JSONDecodeError:
            values.append(line.strip())
            wrong.append(number)
    return values, wrong


def render(value: Any) -> str:
    """The value as Markdown.

    Raises:
        UnreadableDocument: It is nested too deeply.
        DocumentTooLarge: Its Markdown is.
    """
    parts: list[str] = []
    size = 0
    for part in _parts(value, 1):
        parts.append(part)
        size += len(part)
        if size > MAX_CHARACTERS:
            raise DocumentTooLarge
    return "\n\n".join(parts)


def table(values: Sequence[Any]) -> Table | None:
    """Objects that are flat enough as a table, the union of their keys as its header."""
    keys: dict[str, None] = {}
    for value in values:
        if not isinstance(value, dict) or not value:
            return None
        keys.update(dict.fromkeys(value))
        if len(keys) > _MAX_TABLE_COLUMNS or not all(map(_is_short, value.values())):
            return None
    found = Table(header=list(keys))
    return found.extend([_cell(value.get(key)) for key in keys] for value in values)


def shape(value: Any, depth: int = 0) -> dict[str, Any]:
    """Its structure as JSON Schema has it: ``type``, ``properties``, ``items``; and an array's ``length``."""
    if isinstance(value, dict):
        found: dict[str, Any] = {"type": "object"}
        if depth < _SHAPE_DEPTH:
            some = list(value.items())[:_SHAPE_KEYS]
            found["properties"] = {key[:100]: shape(item, depth + 1) for key, item in some}
        return found
    if isinstance(value, list):
        found = {"type": "array", "length": len(value)}
        if value and depth < _SHAPE_DEPTH:
            found["items"] = shape(value[0], depth + 1)
        return found
    return {"type": _TYPES.get(type(value), "number")}


_TYPES = {str: "string", bool: "boolean", type(None): "null"}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        several: dict[str, list[Any]] = {}
        for key, value in pairs:
            several.setdefault(key, []).append(value)
        found = {key: values if len(values) > 1 else values[0] for key, values in several.items()}
    return found


def _parts(value: Any, level: int) -> Iterator[str]:
    """Blocks of Markdown; headings begin at ``level``."""
    if isinstance(value, dict):
        yield from _object_parts(value, level)
    elif isinstance(value, list):
        yield from _array_parts(value, level)
    else:
        yield _plain(value)


def _object_parts(value: Mapping[str, Any], level: int) -> Iterator[str]:
    """What is short comes first, as a list; then a section for each of the others."""
    short = {key: item for key, item in value.items() if _is_line(item)}
    if short:
        yield "\n".join(f"- **{_line(key)}**: {_cell_text(item)}" for key, item in short.items())
    for key, item in value.items():
        if key not in short:
            yield from _section(key, item, level)


def _array_parts(values: Sequence[Any], level: int) -> Iterator[str]:
    if found := table(values):
        yield found.markdown()
    elif all(map(_is_line, values)):
        yield "\n".join(f"- {_cell_text(value)}" for value in values) or "[]"
    else:
        for number, value in enumerate(values, start=1):
            yield from _section(_item_name(value, number), value, level)


def _section(name: str, value: Any, level: int) -> Iterator[str]:
    if level > _MAX_LEVEL:
        text = f"{json.dumps(name, ensure_ascii=False)}: {compact(value)}"
        yield fence(text, "json") if not isinstance(value, str) else f"**{_line(name)}**:\n\n{fence(value)}"
        return
    yield f"{'#' * level} {_line(name) or 'Item'}"
    yield from _parts(value, level + 1)


def _item_name(value: Any, number: int) -> str:
    if isinstance(value, dict):
        for key in _NAMES:
            name = value.get(key)
            if isinstance(name, str | Number) and 0 < len(str(name)) <= 80:
                return f"{number}: {name}"
    return f"Item {number}"


def compact(value: Any, depth: int = 0) -> str:
    """The value as JSON in one line.

    Raises:
        UnreadableDocument: It is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise UnreadableDocument(_TOO_DEEP)
    if isinstance(value, dict):
        pairs = (
            f"{json.dumps(key, ensure_ascii=False)}: {compact(v, depth + 1)}" for key, v in value.items()
        )
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(compact(item, depth + 1) for item in value)}]"
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def _is_short(value: Any) -> bool:
    """Whether it goes into a cell; a string does not lose its lines there."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_CELL and "\n" not in value.strip()
    return not isinstance(value, dict | list) or _weight(value, 0) <= _LONGEST_CELL


def _weight(value: Any, depth: int) -> int:
    """About the characters of the value as JSON; stops counting where it is too long for a cell anyway."""
    if isinstance(value, str):
        return len(value) + 4 + (_LONGEST_CELL if "\n" in value else 0)
    if not isinstance(value, dict | list):
        return len(str(value)) + 2
    total = 2
    for key, item in value.items() if isinstance(value, dict) else ((("", item)) for item in value):
        total += len(key) + _weight(item, depth + 1) if depth < 8 else _LONGEST_CELL + 1
        if total > _LONGEST_CELL:
            break
    return total


def _is_line(value: Any) -> bool:
    if isinstance(value, dict | list):
        return not value
    return "\n" not in str(value)


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return compact(value)
    return str(value) if isinstance(value, Number) else value


def _cell_text(value: Any) -> str:
    if isinstance(value, str):
        return _line(value)
    return compact(value)


def _line(text: str) -> str:
    return " ".join(text.split())


def _plain(value: Any) -> str:
    return fence(value) if isinstance(value, str) and "\n" in value else _cell_text(value)
