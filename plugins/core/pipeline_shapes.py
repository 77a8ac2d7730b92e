"""The JSON of `/v1/pipelines`, and of previews."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from plugins.core.shapes import Shape


class PipelineView(Shape):
    """How documents become passages; its settings are in the configuration's `pipelines`."""

    id: str
    """What a new collection's `pipeline` takes."""
    object: Literal["pipeline"] = "pipeline"
    description: str
    formats: list[str]
    """Asked in their order; the first that accepts a file converts it."""
    chunker: str
    extractor: str
    metadata_schema: dict[str, Any] | None
    """The JSON Schema of what a model looks for in each document; null = no model is asked."""
    embedding_model: str | None
    """That of collections which are made with it and name none; null = the server's usual one."""
    limits: dict[str, Any]
    """What one document may be (`max_bytes`, `max_pages`, `max_chunks`), and what its conversion may use."""
    settings_schema: dict[str, Any] = Field(alias="schema", serialization_alias="schema")
    """The JSON Schema of its settings."""


class PipelineList(Shape):
    object: Literal["list"] = "list"
    data: list[PipelineView]
    has_more: bool = False


class PreviewChunk(Shape):
    """A passage as it would be: `markdown[start:end]`, for pieces of a table with the table's header."""

    start: int
    end: int
    headings: list[str]
    page_first: int | None
    page_last: int | None


class PreviewView(Shape):
    """What a document would become. `markdown` and `metadata`, edited or not, are what `/add` takes."""

    object: Literal["preview"] = "preview"
    filename: str
    markdown: str
    metadata: dict[str, Any]
    warnings: list[str]
    pages: int | None
    chunks: list[PreviewChunk]
    attachments: list[str]
    """Names of the files in it, which become documents of their own."""
