"""The words that every part of the crawler shares: document, page, chunk, hit, filter."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from crawler.settings import Settings

C = TypeVar("C", bound=Settings)

Stage = Literal["queued", "convert", "extract", "chunk", "embed", "store", "done"]
Progress = Callable[[Stage, int, int | None], Awaitable[None]]
"""Called with the stage, and how many of how many pages or chunks are done (total None = unknown)."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Page(Frozen):
    """A page of the source and where its text begins in the markdown."""

    number: int = Field(ge=1)
    start: int = Field(ge=0)
    """Offset in characters into the markdown; a page ends where the next begins."""


def _silent(_done: int, _total: int) -> None:
    return


class Source(Frozen):
    """What a format looks at: the bytes and what the uploader said about them."""

    filename: str
    content: bytes = Field(repr=False)
    media_type: str | None = None
    with_images: bool = False
    """Whether its pictures are wanted; without, a format does not look for them."""
    report: Callable[[int, int], None] = Field(default=_silent, exclude=True, repr=False)
    """Called with how many of how many pages are done, by formats that take long for some."""

    @property
    def suffix(self) -> str:
        """The file name's extension in lower case, with the dot; empty when there is none."""
        _, dot, end = self.filename.rpartition(".")
        return f".{end.lower()}" if dot else ""


class Image(Frozen):
    """A picture of a document, to be described where the pipeline asks for it."""

    offset: int = Field(ge=0)
    """Where in the markdown it stands, in characters."""
    media_type: str
    content: bytes = Field(repr=False)


class Attachment(Frozen):
    """A file inside another: a mail's attachment, an archive's member. It becomes a document of its own."""

    filename: str
    """Its name, without folders."""
    media_type: str | None = None
    content: bytes = Field(repr=False)


class Converted(Frozen):
    """A source as markdown."""

    markdown: str = Field(repr=False)
    pages: tuple[Page, ...] = ()
    """Empty for formats without pages."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Properties of the file itself: ``title``, ``author``, ``created_at``, ``modified_at``, ..."""
    warnings: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = Field(default=(), repr=False)
    images: tuple[Image, ...] = Field(default=(), repr=False)
    """In the order of their offsets."""


class Extracted(Frozen):
    """What was found out about a document."""

    metadata: dict[str, Any] = Field(default_factory=dict)
    """JSON: ``title`` (always), ``language``, ``author``, ..."""
    warnings: tuple[str, ...] = ()


class Chunk(Frozen):
    """A passage: a slice of the markdown under one heading path.

    ``markdown[start:end] == content`` holds for every chunk but a piece of a table, whose ``content``
    repeats the table's header before the slice.
    """

    index: int = Field(ge=0)
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    content: str = Field(repr=False)
    headings: tuple[str, ...] = ()
    page_first: int | None = None
    page_last: int | None = None
    dense: tuple[float, ...] | None = Field(default=None, repr=False)
    """The embedding of ``indexed_text``; set by the embed stage."""

    def indexed_text(self, title: str | None) -> str:
        """What is embedded and indexed: ``title > heading > heading`` and then the content."""
        path = [part for part in (title, *self.headings) if part]
        if len(path) > 1 and path[0] == path[1]:
            del path[0]
        return f"{' > '.join(path)}\n{self.content}" if path else self.content


class Document(Frozen):
    """A document on its way into a collection.

    Convert is skipped where ``markdown`` is set, extract where ``metadata`` has a ``title``, chunk where
    there are ``chunks``.
    """

    collection: str
    """The physical name of the collection in the store."""
    document_id: str
    revision: str
    """Distinguishes this content from what the same document held before."""
    source: str
    """The file name or the address that the document came from."""
    security_group: tuple[str, ...] | None = None
    """Who may read it, as subjects; None = everyone who may query the collection."""
    media_type: str | None = None
    content: bytes | None = Field(default=None, repr=False)
    markdown: str | None = Field(default=None, repr=False)
    metadata: dict[str, Any] | None = None
    """Extracted and given metadata: ``title``, ``language``, ...; what is given wins."""
    attributes: dict[str, Any] = Field(default_factory=dict)
    """What the uploader declared; stored beside the passages, usable in filters."""
    properties: dict[str, Any] = Field(default_factory=dict)
    """What the file says of itself, as its conversion found it."""
    pages: tuple[Page, ...] = ()
    chunks: tuple[Chunk, ...] = Field(default=(), repr=False)
    warnings: tuple[str, ...] = ()


def audience_key(security_group: Sequence[str] | None) -> str:
    """The key of an audience, equal for equal sets of subjects: 32 hex digits, ``everyone`` for None."""
    if security_group is None:
        return "everyone"
    subjects = json.dumps(sorted(set(security_group)), ensure_ascii=True).encode()
    return hashlib.sha256(subjects).hexdigest()[:32]


def chunk_id(document: Document, chunk: Chunk) -> str:
    """sha256 (64 hex digits) of collection, document, revision, position and content."""
    parts = [document.collection, document.document_id, document.revision, chunk.index, chunk.content]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Format(ABC, Generic[C]):
    """A kind of file. ``convert`` blocks; it runs in a child process with limits."""

    def __init__(self, settings: C) -> None:
        self.settings = settings

    @abstractmethod
    def accepts(self, source: Source) -> bool:
        """Whether this is such a file, by content where it can be told and by name elsewhere."""

    @abstractmethod
    def convert(self, source: Source) -> Converted: ...


class Complete(Protocol):
    """Asks a chat model of the proxy, on behalf of the document's uploader."""

    async def __call__(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        response_format: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of its answer.

        Args:
            model: A model name of the proxy.
            messages: As OpenAI's chat completions take them; images as ``image_url`` with a data URL.
            response_format: As OpenAI's: ``{"type": "json_schema", ...}``.

        Raises:
            ModelFailed: It did not answer, or refused.
        """


class Embedder(Protocol):
    """Turns texts into vectors, all of the same dimension, in their order."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...


@dataclass(frozen=True)
class Services:
    """What the stages may ask of models; where there is no proxy to ask, they are None."""

    complete: Complete | None = None
    embedder: Embedder | None = None
    """The collection's."""


class Extractor(ABC, Generic[C]):
    """Finds metadata: ``title`` (always), ``language``, ``author``, ..."""

    def __init__(self, settings: C) -> None:
        self.settings = settings

    @abstractmethod
    async def extract(self, filename: str, converted: Converted, services: Services) -> Extracted: ...


class Chunker(ABC, Generic[C]):
    """Cuts markdown into chunks that cover all of it, in order, none over the token limit."""

    def __init__(self, settings: C) -> None:
        self.settings = settings

    @abstractmethod
    async def chunk(
        self, markdown: str, pages: Sequence[Page], title: str | None, services: Services
    ) -> list[Chunk]: ...
