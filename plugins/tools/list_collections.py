"""The tool that tells which collections there are."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from crawler.settings import Settings
from plugins.core.passages import printable
from plugins.core.ports import Call, Tool, ToolResult
from plugins.core.shapes import CollectionView, Shape


class ListCollectionsSettings(Settings):
    max_collections: int = Field(default=100, ge=1, le=100)
    """How many are listed at most."""


class ListCollectionsArguments(Shape):
    pass


class ListCollections(Tool[ListCollectionsSettings, ListCollectionsArguments]):
    """List the document collections that the user can see, with what each is about and whether it may be
    searched."""

    async def run(self, args: ListCollectionsArguments, call: Call) -> ToolResult:
        found = await self.parts.catalogue.list(call.principal, limit=self.settings.max_collections)
        allowed = call.scope.collections
        views = [view for view in found.data if allowed is None or view.id in allowed]
        lines = [_line(view) for view in views]
        if found.has_more:
            lines.append("There are more.")
        return ToolResult(
            text="\n".join(lines) or "There is no collection that you may see.",
            structured={
                "results": [
                    view.model_dump(include={"id", "name", "description", "documents", "permissions"})
                    for view in views
                ],
                "has_more": found.has_more,
            },
        )

    def describe(self, args: ListCollectionsArguments, titles: Mapping[str, str]) -> str:
        return "Listing the collections"


def _line(view: CollectionView) -> str:
    searchable = "query" in view.permissions or "manage" in view.permissions
    note = f"{view.documents} documents" if searchable else "you may not search it"
    # In one line: a description must not look like another collection.
    description = f": {' '.join(printable(view.description).split())}" if view.description else ""
    return f"- {view.name} ({note}){description}"
