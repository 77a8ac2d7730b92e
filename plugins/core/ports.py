"""The contracts of plugins and the ports through which rooms reach each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, Field

from crawler.contracts import Filter
from crawler.settings import Settings
from plugins.core.identity import Credential, Principal
from plugins.core.shapes import CollectionList, CollectionView, SearchRequest, Shape

C = TypeVar("C", bound=Settings)
A = TypeVar("A", bound=BaseModel)


class Passage(Shape):
    """A passage that a caller may read, dressed with where it is from."""

    collection_id: str
    collection: str
    document_id: str
    filename: str
    title: str
    headings: tuple[str, ...] = ()
    page_first: int | None = None
    page_last: int | None = None
    text: str = Field(repr=False)
    score: float = 0.0
    attributes: dict[str, Any] = Field(default_factory=dict)


class ToolResult(Shape):
    """What a tool found: text for the model, data for programs, and passages that can be cited.

    Where there are passages, the model gets them numbered (`plugins.core.passages.render`) after `text`.
    """

    text: str = ""
    structured: dict[str, Any] = Field(default_factory=dict)
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request narrows searches to, within what the caller may query."""

    collections: frozenset[str] | None = None
    """Ids; None = all that the caller may query."""
    filters: Filter | None = None
    max_num_results: int = 10


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a tool."""

    principal: Principal
    request_id: str
    deadline: float
    """In seconds of ``time.monotonic()``."""
    scope: Scope = field(default_factory=Scope)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Embed(Protocol):
    """Vectors of texts by a model of the proxy, in their order, at the principal's expense."""

    async def __call__(self, model: str, texts: Sequence[str], principal: Principal) -> list[list[float]]: ...


class Catalogue(Protocol):
    """The collections that someone may discover."""

    async def list(
        self, principal: Principal, *, after: str | None = None, limit: int = 100
    ) -> CollectionList: ...

    async def get(self, principal: Principal, ref: str) -> CollectionView:
        """One of them, by id or name.

        Raises:
            UnknownCollection, Forbidden: It is hidden, or may not be discovered.
        """


class Search(Protocol):
    """Passages that someone may read."""

    async def search(
        self, principal: Principal, collections: Sequence[str] | None, request: SearchRequest
    ) -> list[Passage]:
        """The best passages over the collections (ids or names; None = all that may be queried).

        Raises:
            UnknownCollection, Forbidden: A named collection is hidden, or may not be queried.
        """

    async def read(
        self, principal: Principal, document_id: str, pages: tuple[int, int] | None = None
    ) -> list[Passage]:
        """A document's passages in their order.

        Raises:
            UnknownDocument: There is none, or the caller may not read it.
        """


Wellness = Literal["ok", "degraded", "unavailable"]


@dataclass(frozen=True, slots=True)
class HealthReport:
    """How the parts are."""

    store: Wellness
    worker: Wellness
    identity: Wellness
    details: Mapping[str, Any]
    """JSON for admins: versions, restarts, queue length, messages."""


class Health(Protocol):
    """How the server is, in a bounded time; it does not raise."""

    async def check(self) -> HealthReport: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """The ports that a tool may use."""

    catalogue: Catalogue
    search: Search


class Tool(ABC, Generic[C, A]):
    """A function that a model or a program may call.

    The module's name is the tool's name, the class's docstring its description, and the model of
    ``A`` its JSON schema.
    """

    def __init__(self, settings: C, parts: Parts) -> None:
        self.settings = settings
        self.parts = parts

    @abstractmethod
    async def run(self, args: A, call: Call) -> ToolResult:
        """Run it.

        Raises:
            ToolRetry: The model should mend its arguments.
            ToolFailed: The model must do without.
        """


class IdentitySource(ABC, Generic[C]):
    """One way to sign in. Sources are asked in the order of the YAML; the first that accepts decides."""

    def __init__(self, settings: C, name: str) -> None:
        self.settings = settings
        self.name = name

    @abstractmethod
    def accepts(self, credential: Credential) -> bool:
        """Whether this source is the one to judge the credential. No I/O."""

    @abstractmethod
    async def authenticate(self, credential: Credential) -> Principal:
        """Who it is.

        Raises:
            Unauthenticated: The credential is not good; the message says why.
            IdentityUnavailable: It cannot be checked now.
        """

    async def ping(self) -> None:
        """Answer, or raise IdentityUnavailable."""
        return

    async def close(self) -> None:
        """Close what was opened."""
        return
