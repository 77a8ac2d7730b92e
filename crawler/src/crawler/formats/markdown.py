"""Markdown, kept as it is, but for its front matter."""

from __future__ import annotations

import re
from typing import Any

import yaml

from crawler.contracts import Converted, Format, Source
from crawler.formats._text import decode, named
from crawler.settings import Settings

MAX_FRONT_MATTER = 64 * 1024
"""Characters; longer front matter is text like any other."""
_OPENING = re.compile(r"---[ \t]*\n(?![ \t]*\n)")
_CLOSING = re.compile(r"^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.MULTILINE)
_PROPERTIES = {
    "title": ("title",),
    "author": ("author", "authors"),
    "created_at": ("date",),
    "keywords": ("tags", "keywords"),
    "subject": ("description",),
    "language": ("language", "lang"),
}


class Markdown(Format[Settings]):
    """Markdown, in any encoding that plain text may have. Of YAML front matter, ``title``, ``author``,
    ``date``, ``tags``, ``keywords``, ``description`` and ``language`` become properties."""

    def accepts(self, source: Source) -> bool:
        return named(source, {".md", ".markdown", ".mdown"}, {"text/markdown"})

    def convert(self, source: Source) -> Converted:
        text, warnings = decode(source.content)
        found, start = _front_matter(text)
        return Converted(markdown=text[start:], metadata=_properties(found), warnings=warnings)


def _front_matter(text: str) -> tuple[dict[Any, Any], int]:
    """The mapping between ``---`` in the first line and ``---`` or ``...``, and where the text begins.

    As Jekyll, Hugo and Pandoc have it. What is none, or has no text under it, is text: nothing gets lost.
    """
    opening = _OPENING.match(text)
    closing = _CLOSING.search(text, opening.end(), opening.end() + MAX_FRONT_MATTER) if opening else None
    if not opening or not closing or not (rest := text[closing.end() :].lstrip("\n")).strip():
        return {}, 0
    try:
        # All scalars stay text: no tag makes an object, and no merge of aliases grows without end.
        found = yaml.BaseLoader(text[opening.end() : closing.start()]).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, 0
    return (found, len(text) - len(rest)) if isinstance(found, dict) else ({}, 0)


def _properties(found: dict[Any, Any]) -> dict[str, str]:
    properties = {}
    for name, keys in _PROPERTIES.items():
        values = [value for key in keys for value in _texts(found.get(key))]
        if values:
            properties[name] = ", ".join(values)
    return properties


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text.strip() for text in values if isinstance(text, str) and text.strip()]
