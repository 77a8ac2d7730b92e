"""JSON from outside, and validation errors as one sentence about one field, named as the client wrote it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from plugins.core.errors import InvalidRequest

NO_OBJECT = frozenset({"model_type", "model_attributes_type", "dataclass_type", "dict_type"})
"""Pydantic's types of errors whose words name classes and dictionaries of Python."""


def read_json(text: str | bytes) -> Any:
    """JSON whose texts are Unicode (RFC 8259, section 8.2): no answer could hold others.

    Raises:
        ValueError: It is none, a text in it has half of a surrogate pair, or it is nested too deeply.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def invalid(mistakes: Sequence[Any], given: Any, prefix: str = "") -> InvalidRequest:
    """The error for what Pydantic found (``ValidationError.errors()``).

    Of several mistakes the one deepest inside is told: of the members of a union, that is the one
    which the client meant.

    Args:
        mistakes: At least one.
        given: What was validated.
        prefix: Put before the field's path, ``arguments`` say.
    """
    paths = [_path(mistake["loc"], given, mistake["type"] == "missing") for mistake in mistakes]
    deepest = max(range(len(paths)), key=lambda i: len(paths[i]))
    path = ".".join(part for part in (prefix, *paths[deepest]) if part)
    kind, message = mistakes[deepest]["type"], str(mistakes[deepest]["msg"])
    if kind == "extra_forbidden":
        message = "there is no such field"
    elif kind in NO_OBJECT:
        message = "must be a JSON object"
    sentence = message[0].lower() + message[1:]
    return InvalidRequest(f"{path}: {sentence}" if path else sentence, param=path or None)


def _path(location: Sequence[str | int], given: Any, missing: bool) -> list[str]:
    """The parts of ``location`` that are in what was given: Pydantic also names members of unions."""
    parts: list[str] = []
    here = given
    for part in location:
        if isinstance(here, dict) and part in here:  # noqa: SIM114 - mypy narrows them apart
            here = here[part]
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            continue
        parts.append(str(part))
    return [*parts, str(location[-1])] if missing else parts
