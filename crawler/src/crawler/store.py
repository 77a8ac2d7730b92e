"""The port of the vector store, and what is asked of it: filters, queries, hits, rights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field, SecretStr

from crawler.contracts import Document, Frozen
from crawler.errors import StoreCapability
from crawler.settings import Settings

C = TypeVar("C", bound=Settings)


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


@dataclass(frozen=True, slots=True)
class Row:
    """A passage as it is kept, to be written into another collection of the store, or another store."""

    document_id: str
    revision: str
    index: int
    """Of the passage in its document: 0, 1, 2, ..."""
    page_first: int
    """0 = it is on no page; so is ``page_last``."""
    page_last: int
    text: str
    """The passage with its ``title > heading`` prefix."""
    acl_key: str
    meta: Mapping[str, Any]
    """What else a hit shows; the store's own words, JSON."""
    vector: array[float]
    """In single precision (type code ``f``)."""


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

    async def count(self, name: str, document_id: str | None = None, revision: str | None = None) -> int:
        """How many passages the collection has, or one revision of a document in it; what was written before
        is counted."""
        raise StoreCapability("This vector store does not count its passages.")

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

    def rows(self, name: str, revisions: Mapping[str, str]) -> AsyncIterator[Row]:
        """The rows of these documents' revisions, whoever may read them: to be kept elsewhere. In no order.

        Args:
            name: The collection.
            revisions: By document id.
        """
        raise StoreCapability("This vector store does not give its rows out.")

    async def write_rows(self, name: str, rows: Sequence[Row]) -> None:
        """Write rows that another collection gave out, of vectors of this one's dimension, and flush;
        repeating it is harmless."""
        raise StoreCapability("This vector store takes no rows of others.")

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
