"""The JSON of documents and of their jobs: `/v1/collections/{id}/documents` and `/v1/jobs`.

Documents carry the fields of OpenAI's vector-store files:
https://platform.openai.com/docs/api-reference/vector-stores-files
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from plugins.core.shapes import Attributes, Shape

Moment = float | Annotated[str, Field(max_length=64)]
"""Seconds since 1970 (UTC), or ISO 8601."""


class LastError(Shape):
    code: str
    message: str


Status = Literal["in_progress", "completed", "cancelled", "failed"]


class Progress(Shape):
    done: int
    total: int


class JobView(Shape):
    id: str
    object: Literal["job"] = "job"
    document_id: str
    collection_id: str
    filename: str
    batch_id: str | None
    """The documents of one upload have the same."""
    status: Status
    stage: str
    """queued, convert, extract, chunk, embed, store, done; waiting: what it needs does not answer; deleted"""
    done: int
    """Pages or chunks done of this stage."""
    total: int | None
    pages: Progress | None
    """Null where the document has none, or it is not known yet."""
    chunks: Progress | None
    percent: int
    """0 to 100, of the whole work."""
    seconds_left: int | None
    """An estimate; null where none can be made."""
    waiting_until: int | None
    """When it is tried again, in seconds since 1970 (UTC)."""
    attempts: int
    """Tries so far, the running one included; 0 again when it has ended."""
    last_error: LastError | None = None
    created_at: int
    """Of the document, in seconds since 1970 (UTC)."""
    started_at: int | None
    """When the work on it began; null: not yet."""


class JobList(Shape):
    object: Literal["list"] = "list"
    data: list[JobView]
    has_more: bool = False


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
    status: Status
    last_error: LastError | None
    warnings: list[str]
    """What could not be kept of it, and the like; empty for those who may neither read it nor uploaded it."""
    attributes: dict[str, Any]
    properties: dict[str, Any]
    """What was found in it, or given with its markdown; empty for those who may neither read it nor uploaded
    it."""
    usage_bytes: int
    sha256: str | None
    """Of the file, in hex; null for those who may neither read it nor uploaded it."""
    chunks: int
    pages: int | None
    acl: list[str] | None
    """Its audience; null = everyone who may query the collection."""
    created_at: int
    expires_at: int | None
    """From then on it is as if it were deleted, in seconds since 1970 (UTC)."""
    uploaded_by: str
    parent_id: str | None
    """The mail or archive that it was in."""
    batch_id: str | None
    job: DocumentJob | None = None


class DocumentInput(Shape):
    """One document given as JSON; exactly one of `markdown`, `text` and `url`."""

    markdown: str | None = None
    text: str | None = None
    url: str | None = None
    filename: str | None = Field(default=None, max_length=255)
    metadata: dict[str, Any] = Field(default={}, max_length=200)
    """Attributes: at most 16 scalars. Beside `markdown` any JSON of at most 64 KiB: what is no scalar, and
    what would be found in a document (`title`, `author`, ...), is its properties; with a `title` nothing is
    looked for."""
    acl: list[str] | None = None
    id: str | None = Field(default=None, description="Replaces the document that has this id")
    expires_at: Moment | None = None
    """From then on it is as if it were deleted."""


class AddDocuments(Shape):
    documents: list[DocumentInput] = Field(min_length=1, max_length=1000)


class DocumentPatch(Shape):
    metadata: Attributes | None = Field(default=None, max_length=16)
    acl: list[str] | None = None
    """Send null for "everyone who may query"; leave out to keep."""
    expires_at: Moment | None = None
    """From then on it is as if it were deleted; null = never, leave out to keep."""


class DocumentList(Shape):
    object: Literal["list"] = "list"
    data: list[DocumentView]
    has_more: bool = False
    batch_id: str | None = None
    """Of an upload: what its documents have in common."""
