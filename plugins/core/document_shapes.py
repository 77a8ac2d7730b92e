"""The JSON of documents and of their jobs: `/v1/collections/{id}/documents` and `/v1/jobs`.

Documents carry the fields of OpenAI's vector-store files:
https://platform.openai.com/docs/api-reference/vector-stores-files
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from plugins.core.shapes import Attributes, Shape


class LastError(Shape):
    code: str
    message: str


class JobView(Shape):
    id: str
    object: Literal["job"] = "job"
    document_id: str
    collection_id: str
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    stage: str
    """queued, convert, extract, chunk, embed, store, done"""
    done: int
    """Pages or chunks done of this stage."""
    total: int | None
    attempts: int
    """Tries so far, the running one included; 0 again when it has ended."""
    last_error: LastError | None = None


class DocumentJob(Shape):
    id: str
    stage: str
    done: int
    total: int | None


class DocumentView(Shape):
    id: str
    object: Literal["collection.document"] = "collection.document"
    collection_id: str
    filename: str
    media_type: str | None
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    last_error: LastError | None
    attributes: dict[str, Any]
    usage_bytes: int
    chunks: int
    pages: int | None
    acl: list[str] | None
    """Its audience; null = everyone who may query the collection."""
    created_at: int
    uploaded_by: str
    job: DocumentJob | None = None


class DocumentInput(Shape):
    """One document given as JSON; exactly one of `markdown`, `text` and `url`."""

    markdown: str | None = None
    text: str | None = None
    url: str | None = None
    filename: str | None = Field(default=None, max_length=255)
    metadata: Attributes = Field(default={}, max_length=16)
    acl: list[str] | None = None
    id: str | None = Field(default=None, description="Replaces the document that has this id")


class AddDocuments(Shape):
    documents: list[DocumentInput] = Field(min_length=1, max_length=1000)


class DocumentPatch(Shape):
    metadata: Attributes | None = Field(default=None, max_length=16)
    acl: list[str] | None = None
    """Send null for "everyone who may query"; leave out to keep."""


class DocumentList(Shape):
    object: Literal["list"] = "list"
    data: list[DocumentView]
    has_more: bool = False
