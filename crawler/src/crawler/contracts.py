"""The words that every part of the crawler shares: document, page, chunk, hit, filter."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from crawler.errors import StoreCapability
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


class Source(Frozen):
    """What a format looks at: the bytes and what the uploader said about them."""

    filename: str
    content: bytes = Field(repr=False)
    media_type: str | None = None

    @property
    def suffix(self) -> str:
        """The file name's extension in lower case, with the dot; empty when there is none."""
        _, dot, end = self.filename.rpartition(".")
        return f".{end.lower()}" if dot else ""


class Converted(Frozen):
    """A source as markdown."""

    markdown: str = Field(repr=False)
    pages: tuple[Page, ...] = ()
    """Empty for formats without pages."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Properties of the file itself: ``title``, ``author``, ``created_at``, ``modified_at``, ..."""
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

    Convert is skipped where ``markdown`` is set, extract where ``metadata`` is set.
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
    """Extracted and given metadata: ``title``, ``language``, ...; None = to be extracted."""
    attributes: dict[str, Any] = Field(default_factory=dict)
    """What the uploader declared; stored beside the passages, usable in filters."""
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


# --- filters ---------------------------------------------------------------------------------------


class Comparison(Frozen):
    """OpenAI's comparison filter.

    https://platform.openai.com/docs/api-reference/vector-stores/search
    """

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str = Field(min_length=1, max_length=64)
    value: str | bool | int | float | list[str | int | float]


class Compound(Frozen):
    """OpenAI's compound filter: all (``and``) or any (``or``) of its parts."""

    type: Literal["and", "or"]
    filters: list[Comparison | Compound] = Field(min_length=1, max_length=32)


Filter = Comparison | Compound

FieldType = Literal["string", "number", "boolean"]


# --- search ----------------------------------------------------------------------------------------

Retrieval = Literal["hybrid", "dense"]
Metric = Literal["COSINE", "IP", "L2"]
Ranker = Literal["rrf", "dense", "bm25"]


class Hit(Frozen):
    """A passage that a search found."""

    id: str
    document_id: str
    revision: str
    index: int
    content: str = Field(repr=False)
    """The passage without its ``title > heading`` prefix."""
    headings: tuple[str, ...] = ()
    page_first: int | None = None
    page_last: int | None = None
    start: int = 0
    end: int = 0
    acl_key: str
    attributes: dict[str, Any] = Field(default_factory=dict)
    score: float = 0.0
    """In 0..1, higher is better: the cosine for `dense`, the share of the best attainable for `rrf`."""


class Query(Frozen):
    """A search in one collection of the store."""

    text: str
    vector: tuple[float, ...] | None = Field(default=None, repr=False)
    """Needed unless the ranker is ``bm25``."""
    ranker: Ranker = "rrf"
    limit: int = Field(default=10, ge=1, le=200)
    filters: Filter | None = None
    fields: dict[str, FieldType] = Field(default_factory=dict)
    """The declared fields of the collection that filters may name, beside the built-in ones."""
    fresh: bool = False
    """Strong consistency: see every write that was acknowledged before this search."""


class Capabilities(Frozen):
    version: str
    hybrid: bool
    """It has BM25 functions and hybrid search."""
    embedded: bool


Audience = frozenset[str]
"""The audience keys that admit a caller. Every read of the store takes one, and has no default for it."""


class Layout(Frozen):
    """Which fields hold what in a collection that others made."""

    id: str | None = None
    """The primary key, by default the one of the schema."""
    text: str
    vector: str
    metadata: str | None = None
    """A JSON object."""
    source: str | None = None
    """Where the passage is from: a file name or an address."""
    title: str | None = None
    page: str | None = None


class Outline(Frozen):
    """What the embeddings of a collection that others made are."""

    dimension: int
    metric: Metric


class ForeignHit(Frozen):
    """A passage of a collection that others made. It has no document and no audience."""

    id: str
    content: str = Field(repr=False)
    source: str | None = None
    title: str | None = None
    page: int | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)
    score: float = 0.0
    """As of :class:`Hit` for the ranker `dense`."""


StoreRight = Literal["discover", "query", "add", "manage"]


class Privileges(Frozen):
    """What a user of the store may do, as the store's own roles say."""

    rights: dict[str, frozenset[StoreRight]] = Field(default_factory=dict)
    """By the physical name of a collection; ``*`` = every collection."""
    create: bool = False

    def on(self, name: str) -> frozenset[StoreRight]:
        """The rights to the collection ``name``."""
        return self.rights.get(name, frozenset()) | self.rights.get("*", frozenset())


class Store(ABC, Generic[C]):
    """Where passages live: the only part that knows the vector database.

    One object per process and event loop; connections are opened at first use.
    All methods raise :class:`StoreUnavailable` when the database cannot be reached and
    :class:`StoreRefused` when it refuses.

    Methods with a ``credential`` act as whoever it belongs to, and raise :class:`CredentialRefused` when the
    database does not accept it and :class:`StoreDenied` when its holder may not do this. Without one they
    act as this service.
    """

    has_rights = False
    """Whether it has users and rights of its own, which ``visible`` and ``privileges`` tell."""

    def __init__(self, settings: C) -> None:
        self.settings = settings

    @abstractmethod
    async def capabilities(self) -> Capabilities: ...

    @abstractmethod
    async def create(
        self,
        name: str,
        *,
        dimension: int,
        metric: Metric,
        retrieval: Retrieval,
        credential: SecretStr | None = None,
    ) -> None:
        """Make the collection ``name``; harmless when it exists with the same shape."""

    @abstractmethod
    async def drop(self, name: str, *, credential: SecretStr | None = None) -> None:
        """Drop the collection; harmless when there is none."""

    @abstractmethod
    async def write(self, document: Document) -> int:
        """Write all chunks of the document's revision and flush; repeating it is harmless.

        Returns:
            The number of rows written.
        """

    @abstractmethod
    async def remove(self, name: str, document_id: str, *, keep: str | None = None) -> None:
        """Remove the document's rows, except those of the revision ``keep``."""

    @abstractmethod
    async def search(self, name: str, query: Query, audience: Audience) -> list[Hit]:
        """The best passages that the audience admits, best first."""

    @abstractmethod
    async def passages(
        self,
        name: str,
        document_id: str,
        revision: str,
        audience: Audience,
        *,
        pages: tuple[int, int] | None = None,
        limit: int = 1000,
    ) -> list[Hit]:
        """The passages of one revision of a document in their order, optionally of a page span."""

    async def visible(self, credential: SecretStr) -> frozenset[str]:
        """The collections that the credential's holder sees, asked as that holder."""
        raise StoreCapability("This vector store has no users of its own.")

    async def privileges(self, credential: SecretStr) -> Privileges:
        """What the credential's holder may do, asked as this service. The credential itself is not checked:
        ask ``visible`` first."""
        raise StoreCapability("This vector store has no users of its own.")

    async def names(self) -> frozenset[str]:
        """All collections, whoever made them."""
        raise StoreCapability("This vector store cannot list its collections.")

    async def outline(self, name: str, layout: Layout) -> Outline:
        """What a collection that others made is.

        Raises:
            StoreMismatch: It does not have these fields, or it is one of ours.
        """
        raise StoreCapability("This vector store has no collections of others.")

    async def search_foreign(
        self, name: str, layout: Layout, vector: Sequence[float], limit: int
    ) -> list[ForeignHit]:
        """The best passages of a collection that others made, whoever asks: it knows no audiences.
        Raises as ``outline`` does."""
        raise StoreCapability("This vector store has no collections of others.")

    @abstractmethod
    async def ping(self) -> None:
        """Answer, or raise."""

    @abstractmethod
    async def close(self) -> None: ...


# --- the other plugins -----------------------------------------------------------------------------


class Format(ABC, Generic[C]):
    """A kind of file. ``convert`` blocks; it runs in a child process with limits."""

    def __init__(self, settings: C) -> None:
        self.settings = settings

    @abstractmethod
    def accepts(self, source: Source) -> bool:
        """Whether this is such a file, by content where it can be told and by name elsewhere."""

    @abstractmethod
    def convert(self, source: Source) -> Converted: ...


class Extractor(ABC, Generic[C]):
    """Finds metadata: ``title`` (always), ``language``, ``author``, ..."""

    def __init__(self, settings: C) -> None:
        self.settings = settings

    @abstractmethod
    def extract(self, filename: str, converted: Converted) -> dict[str, Any]: ...


class Chunker(ABC, Generic[C]):
    """Cuts markdown into chunks that cover all of it, in order, none over the token limit."""

    def __init__(self, settings: C) -> None:
        self.settings = settings

    @abstractmethod
    def chunk(self, markdown: str, pages: Sequence[Page], title: str | None) -> list[Chunk]: ...


class Embedder(Protocol):
    """Turns texts into vectors, all of the same dimension, in their order."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...
