"""Milvus boolean expressions (https://milvus.io/docs/boolean.md), built only here.

Nothing that a person wrote enters an expression but as an escaped literal: fields come from a list, and
the audience is the last term, in parentheses, of every expression.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from crawler.errors import FilterError
from crawler.store import Audience, Comparison, Compound, FieldType, Filter

MAX_DEPTH = 8
MAX_COMPARISONS = 100
MAX_VALUES = 200
MAX_STRING = 4096

BUILT_IN: Mapping[str, tuple[str, FieldType]] = {
    "filename": ('meta["fields"]["filename"]', "string"),
    "title": ('meta["fields"]["title"]', "string"),
    "language": ('meta["fields"]["language"]', "string"),
    "created_at": ('meta["fields"]["created_at"]', "number"),
    "document_id": ("doc_id", "string"),
}
"""What every collection has, beside ``page``: name -> (the term in Milvus, its type).

``created_at`` is in seconds since the epoch; a filter may give it as ISO 8601 as well.
"""

_OPERATORS = {"eq": "==", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_AUDIENCE = re.compile(r"everyone|[0-9a-f]{32}")
_DOCUMENT = re.compile(r"[A-Za-z0-9_-]{1,128}")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def literal(value: str | bool | int | float) -> str:
    """``value`` as a literal; a string in double quotes with the escapes that Milvus and milvus-lite share.

    Raises:
        FilterError: Not a finite number, not 64-bit, or a string that is not Unicode or is too long.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if len(value) > MAX_STRING or not _encodable(value):
            raise FilterError(f"A string in a filter is Unicode text of at most {MAX_STRING} characters.")
        return f'"{value.translate(_ESCAPES)}"'
    if abs(value) >= 2**63 or math.isnan(value):
        raise FilterError("A number in a filter must be finite and within 64 bits.")
    return repr(value)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def admitted(audience: Audience) -> str:
    """The audience's predicate; the caller answers an empty audience without asking.

    Raises:
        ValueError: A key is not an audience key, or there is none.
    """
    if not audience or not all(_AUDIENCE.fullmatch(key) for key in audience):
        raise ValueError("an audience is a set of one or more audience keys")
    return f"(acl_key in [{', '.join(literal(key) for key in sorted(audience))}])"


def within(audience: Audience, filters: Filter | None, fields: Mapping[str, FieldType]) -> str:
    """The expression of a search: what the filter and the audience admit.

    Raises:
        FilterError: An unknown field (named in ``param``), a wrong type, or too large a filter.
    """
    if filters is None:
        return admitted(audience)
    return f"({checked(filters, fields)}) and {admitted(audience)}"


def checked(filters: Filter, fields: Mapping[str, FieldType]) -> str:
    """The expression of a filter alone.

    Raises:
        FilterError: As `within`.
    """
    if sum(1 for _ in _comparisons(filters, 1)) > MAX_COMPARISONS:
        raise FilterError(f"A filter may have at most {MAX_COMPARISONS} comparisons.")
    return _expression(filters, fields)


def of_document(document_id: str, revision: str | None = None, *, without: str | None = None) -> str:
    """The rows of a document: of one ``revision``, or all but those of the revision ``without``.

    Raises:
        ValueError: Not an id.
    """
    terms = [f"doc_id == {_identifier(document_id)}"]
    if revision is not None:
        terms.append(f"revision == {_identifier(revision)}")
    if without is not None:
        terms.append(f"revision != {_identifier(without)}")
    return " and ".join(terms)


def of_documents(revisions: Mapping[str, str]) -> str:
    """The rows of documents (by id) in their revisions. An id that is of another document's revision as well
    is admitted: the caller looks.

    Raises:
        ValueError: Not an id.
    """
    ids, each = (", ".join(map(_identifier, part)) for part in (revisions, set(revisions.values())))
    return f"doc_id in [{ids}] and revision in [{each}]"


def _identifier(value: str) -> str:
    if not _DOCUMENT.fullmatch(value):
        raise ValueError("document ids and revisions have 1 to 128 letters, digits, `_` and `-`")
    return literal(value)


def _comparisons(filters: Filter, depth: int) -> Iterable[Comparison]:
    if depth > MAX_DEPTH:
        raise FilterError(f"A filter may be nested at most {MAX_DEPTH} deep.")
    if isinstance(filters, Comparison):
        yield filters
        return
    for part in filters.filters:
        yield from _comparisons(part, depth + 1)


def _expression(filters: Filter, fields: Mapping[str, FieldType]) -> str:
    if isinstance(filters, Compound):
        return f" {filters.type} ".join(f"({_expression(part, fields)})" for part in filters.filters)
    values = filters.value if isinstance(filters.value, list) else [filters.value]
    several = filters.type in ("in", "nin")
    if several != isinstance(filters.value, list) or not 1 <= len(values) <= MAX_VALUES:
        wanted = f"a list of 1 to {MAX_VALUES} values" if several else "one value"
        raise FilterError(f"`{filters.type}` on `{filters.key}` takes {wanted}.", param=filters.key)
    if not several:
        return _compare(filters.key, filters.type, values[0], fields)
    # milvus-lite has no `in` on the path of a JSON field.
    operator, joint = ("eq", " or ") if filters.type == "in" else ("ne", " and ")
    return joint.join(f"({_compare(filters.key, operator, value, fields)})" for value in values)


def _compare(key: str, operator: str, value: Any, fields: Mapping[str, FieldType]) -> str:
    if key == "page":
        return _page(operator, value)
    term, kind = _field(key, fields)
    if key == "created_at" and isinstance(value, str):
        value = epoch_seconds(value)
    if not _is(kind, value):
        raise FilterError(f"`{key}` is compared with a {kind}.", param=key)
    if kind == "boolean" and operator not in ("eq", "ne"):
        raise FilterError(f"`{key}` is a boolean: use `eq` or `ne`.", param=key)
    return f"{term} {_OPERATORS[operator]} {literal(value)}"


def _field(key: str, fields: Mapping[str, FieldType]) -> tuple[str, FieldType]:
    if key in BUILT_IN:
        return BUILT_IN[key]
    if key in fields and _FIELD.fullmatch(key):
        return f'meta["attributes"][{literal(key)}]', fields[key]
    known = ", ".join(f"`{name}`" for name in sorted({*BUILT_IN, "page", *fields}))
    raise FilterError(f"`{key[:64]}` is not a field of this collection; there are {known}.", param=key[:64])


def _is(kind: FieldType, value: Any) -> bool:
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str if kind == "string" else bool)


def _page(operator: str, value: Any) -> str:
    """A passage is on a page when its span has it; passages without pages (0) are on none."""
    if not _is("number", value) or (isinstance(value, float) and not value.is_integer()):
        raise FilterError("`page` is compared with a whole number.", param="page")
    number = literal(int(value))
    if operator == "eq":
        return f"page_first > 0 and page_first <= {number} and page_last >= {number}"
    if operator == "ne":
        return f"page_first > {number} or page_last < {number}"
    side = "page_first" if operator in ("lt", "lte") else "page_last"
    return f"page_first > 0 and {side} {_OPERATORS[operator]} {number}"


def epoch_seconds(value: str) -> float:
    """An ISO 8601 date or time as seconds since the epoch; without an offset it is UTC.

    Raises:
        FilterError: It is not ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise FilterError("`created_at` is compared with ISO 8601 or seconds.", param="created_at") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
