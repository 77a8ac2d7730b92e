"""The tool that finds passages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from crawler.settings import Settings
from crawler.store import Filter
from plugins.core.ports import Call, Tool, ToolResult
from plugins.core.shapes import SearchRequest, Shape
from plugins.tools._scope import both, narrowed

_COMPARISON: dict[str, Any] = {
    "type": {
        "type": "string",
        "enum": ["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "and", "or"],
    },
    "key": {"type": "string", "description": "A field: page, filename, title, language, ..."},
    "value": {"description": "What the field is compared with; a list for in and nin"},
}
_FILTER: dict[str, Any] = {
    "type": "object",
    "description": (
        "Only passages with these attributes: "
        '{"type": "eq", "key": "page", "value": 3}, or several as '
        '{"type": "and", "filters": [...]}. Leave out unless asked for.'
    ),
    "properties": {
        **_COMPARISON,
        "filters": {
            "type": "array",
            "items": {"type": "object", "properties": _COMPARISON},
            "description": "The parts of `and` and `or`",
        },
    },
    "required": ["type"],
}
"""Flat: many models cannot follow the recursive schema that Pydantic makes of the filter."""


class SearchDocumentsSettings(Settings):
    default_num_results: int = Field(default=8, ge=1, le=50)
    """Passages when the caller does not say how many."""
    max_num_results: int = Field(default=20, ge=1, le=50)
    """At most so many, whatever the caller says."""


class SearchDocumentsArguments(Shape):
    query: str = Field(
        min_length=1,
        max_length=8000,
        description="What to look for: a question or key words, in the language of the documents",
    )
    collections: list[str] | None = Field(
        default=None,
        max_length=50,
        description="Names or ids of the collections to search; leave out to search all",
    )
    filters: Annotated[Filter | None, WithJsonSchema(_FILTER)] = None
    max_num_results: int | None = Field(
        default=None, ge=1, le=50, description="How many passages at most, 1 to 50"
    )
    """At most so many, whatever the caller says."""


class SearchDocuments(Tool[SearchDocumentsSettings, SearchDocumentsArguments]):
    """Search the user's documents and get the best matching passages, numbered for citing.

    Use it whenever the answer may be in the documents. Search again in other words when the passages do
    not answer the question.
    """

    async def run(self, args: SearchDocumentsArguments, call: Call) -> ToolResult:
        wanted = args.max_num_results or self.settings.default_num_results
        passages = await self.parts.search.search(
            call.principal,
            await narrowed(self.parts.catalogue, args.collections, call),
            SearchRequest(
                query=args.query,
                filters=both(call.scope.filters, args.filters),
                max_num_results=min(wanted, self.settings.max_num_results, call.scope.max_num_results),
                ranking_options=call.scope.ranking_options,
            ),
        )
        return ToolResult(
            text="" if passages else "Nothing was found.",
            structured={"results": [passage.model_dump(mode="json") for passage in passages]},
            passages=tuple(passages),
        )

    def describe(self, args: SearchDocumentsArguments, titles: Mapping[str, str]) -> str:
        return f"Searching: {args.query}"
