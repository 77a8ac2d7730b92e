"""The tool that reads a document, or some of its pages, from the beginning."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, field_validator

from crawler.settings import Settings
from plugins.core.errors import ToolRetry, UnknownDocument
from plugins.core.ports import Call, Passage, Tool, ToolResult
from plugins.core.shapes import Shape

_PAGES = re.compile(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?")


class ReadDocumentSettings(Settings):
    max_chars: int = Field(default=20_000, ge=1000)
    """Of the passages together; what is over is left out, and the answer says so."""


class ReadDocumentArguments(Shape):
    document_id: str = Field(
        min_length=1, max_length=128, description="The id of the document, from a search's results"
    )
    pages: str | None = Field(
        default=None, description='A page, "3", or a span of pages, "3-5"; leave out to read from the start'
    )

    @field_validator("pages")
    @classmethod
    def _is_a_span(cls, value: str | None) -> str | None:
        if value is not None:
            span(value)
        return value


class ReadDocument(Tool[ReadDocumentSettings, ReadDocumentArguments]):
    """Read a document of the user's collections, or some of its pages, in order.

    Use it when a passage that was found is not enough by itself.
    """

    async def run(self, args: ReadDocumentArguments, call: Call) -> ToolResult:
        if call.scope.filters is not None:
            raise ToolRetry("This conversation searches with a filter: use search_documents instead.")
        pages = span(args.pages) if args.pages is not None else None
        found = await self.parts.search.read(call.principal, args.document_id, pages)
        allowed = call.scope.collections
        if allowed is not None and any(passage.collection_id not in allowed for passage in found):
            raise UnknownDocument
        kept = _within(found, self.settings.max_chars)
        notes = []
        if not found:
            notes.append("There is no text on these pages.")
        if len(kept) < len(found):
            rest = found[len(kept)].page_first
            notes.append(f"The rest is left out{f'; go on with page {rest}' if rest else ''}.")
        return ToolResult(
            text=" ".join(notes),
            structured={
                "results": [passage.model_dump(mode="json") for passage in kept],
                "has_more": len(kept) < len(found),
            },
            passages=tuple(kept),
        )

    def describe(self, args: ReadDocumentArguments, titles: Mapping[str, str]) -> str:
        title = titles.get(args.document_id, "a document")
        if args.pages is None:
            return f"Reading {title}"
        first, last = span(args.pages)
        return f"Reading {title}, {f'page {first}' if first == last else f'pages {first}-{last}'}"


def span(pages: str) -> tuple[int, int]:
    """``"3"`` as (3, 3) and ``"3-5"`` as (3, 5).

    Raises:
        ValueError: It is neither, or its end is before its beginning.
    """
    match = _PAGES.fullmatch(pages)
    if match is None:
        raise ValueError('write one page, "3", or a span, "3-5"')
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last:
        raise ValueError("pages count from 1, and a span's end is not before its beginning")
    return first, last


def _within(passages: list[Passage], max_chars: int) -> list[Passage]:
    kept: list[Passage] = []
    chars = 0
    for passage in passages:
        chars += len(passage.text)
        if kept and chars > max_chars:
            break
        kept.append(passage)
    return kept
