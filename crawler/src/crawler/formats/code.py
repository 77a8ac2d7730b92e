"""Source code."""

from __future__ import annotations

from typing import Any

from crawler.contracts import Converted, Format, Source
from crawler.formats._languages import language_of
from crawler.formats._outline import Section, outline
from crawler.formats._text import decode, fence, is_markup, is_text
from crawler.settings import Settings

_MAX_LEVEL = 6
_MAX_NAMES = 500


class Code(Format[Settings]):
    """Source code, and files of settings: classes and functions as headings over fenced code, by language."""

    def accepts(self, source: Source) -> bool:
        known = language_of(source) is not None
        return known and is_text(source.content) and not is_markup(source.content)

    def convert(self, source: Source) -> Converted:
        text, warnings = decode(source.content)
        language = language_of(source) or "text"
        name = source.filename.replace("\\", "/").rpartition("/")[2]
        found = outline(text, language)
        lines = text.split("\n")
        sections = found.sections if found else (Section((), 0, len(lines)),)
        parts = [f"# {name}"]
        path: tuple[str, ...] = ()
        for section in sections:
            code = "\n".join(lines[section.first : section.last]).strip("\n")
            if section.path != path:
                heading = section.path[-1] if section.path else name
                parts.append(f"{'#' * min(len(section.path) + 1, _MAX_LEVEL)} {heading}")
                path = section.path
            if code.strip():
                parts.append(fence(code, language))
        metadata: dict[str, Any] = {"programming_language": language, "line_count": len(text.splitlines())}
        if found:
            names = {"functions": found.functions, "classes": found.classes, "imports": found.imports}
            metadata |= {key: list(values[:_MAX_NAMES]) for key, values in names.items() if values}
        return Converted(markdown="\n\n".join(parts), metadata=metadata, warnings=warnings)
