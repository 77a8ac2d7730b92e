"""The contracts of plugins and the ports through which rooms reach each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, Field, SecretStr

from crawler.settings import Settings
from crawler.store import Filter
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.shapes import CollectionList, CollectionView, RankingOptions, SearchRequest, Shape

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
    source: str | None = None
    """Where a passage is from whose collection was made outside: it has no document here, and its
    `document_id` is only its key there."""


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
    ranking_options: RankingOptions = field(default_factory=RankingOptions)


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


class QueryableCollection(NamedTuple):
    """A collection that someone may query, as it is told to a model."""

    id: str
    name: str
    description: str = ""


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
    database: Wellness
    worker: Wellness
    identity: Wellness
    details: Mapping[str, Any]
    """JSON for admins: versions, restarts, queue length, messages."""
    stopping: bool = False
    """Whether it ends and should get no new requests."""


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

    def describe(self, args: A, titles: Mapping[str, str]) -> str:
        """What a run does, in words for the user who waits for it: ``Searching: notice period``.

        Args:
            args: Of the run.
            titles: Of the documents that were found in this conversation, by their ids.
        """
        return f"Running {type(self).__module__.rpartition('.')[2]}"


class Tokens(Shape):
    """What an issuer gives for a sign-in (RFC 6749, section 5.1)."""

    access_token: str = Field(repr=False)
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the kind
    expires_in: int = Field(ge=0)
    """Seconds."""
    refresh_token: str | None = Field(default=None, repr=False)
    refresh_expires_in: int | None = Field(default=None, ge=0)
    """Seconds."""
    id_token: str | None = Field(default=None, repr=False)
    scope: str | None = None


class Ended(NamedTuple):
    """Whom a logout token signs out (OpenID Connect Back-Channel Logout 1.0, section 2.4)."""

    source: str
    subject: str | None
    session: str | None
    issued_at: float


class SignIn(Protocol):
    """Signing in at an issuer, as its client. All raise IdentityUnavailable where it does not answer."""

    async def password(self, username: str, password: SecretStr) -> Tokens:
        """Raises Unauthenticated where the issuer refuses them."""

    async def code(self, code: str, *, redirect_uri: str, code_verifier: str) -> Tokens:
        """Raises Unauthenticated where the code is not good."""

    async def refresh(self, refresh_token: SecretStr) -> Tokens:
        """Raises Unauthenticated where it is not (or no longer) good."""

    async def revoke(self, refresh_token: SecretStr) -> None:
        """End its session at the issuer. Raises Unauthenticated where it is not good."""

    async def authorization_url(
        self, *, redirect_uri: str, state: str, nonce: str, code_challenge: str
    ) -> str:
        """Where a browser signs in (authorization code with PKCE, S256)."""


class Person(NamedTuple):
    """Somebody who can sign in."""

    username: str
    email: str | None
    groups: frozenset[str] = frozenset()
    """Paths without the leading slash; as `roles`, only where one person is asked for."""
    roles: frozenset[str] = frozenset()


class Directory(Protocol):
    """Who there is at an issuer. All raise IdentityUnavailable where it does not answer."""

    async def people(self, search: str, *, after: str | None, limit: int) -> Sequence[Person]:
        """At most `limit` people in the issuer's order, from the one behind the name `after` on.

        Those whose name or e-mail address holds `search`; an empty one is held by all.
        """

    async def person(self, username: str) -> Person | None:
        """One of them, with their groups and roles."""

    async def roles(self) -> Sequence[str]:
        """The names of all roles."""

    async def groups(self) -> Sequence[str]:
        """The paths of all groups."""


class IdentitySource(ABC, Generic[C]):
    """One way to sign in. Sources are asked in the order of the YAML; the first that accepts decides."""

    sign_in: SignIn | None = None
    """Signing in at this source's issuer, where it is configured as a client there."""
    authorization_server: str | None = None
    """The address of the issuer whose access tokens it takes (RFC 8414), where there is one."""
    secret_headers: frozenset[str] = frozenset()
    """Headers beside `Authorization` that hold its credentials, in lower case: they are not passed on."""
    directory: Directory | None = None
    """Who there is at this source's issuer, where we may ask it."""

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

    async def ended(self, logout_token: str) -> Ended:
        """Whom the issuer's logout token signs out.

        Raises:
            Unauthenticated: It is not a logout token of this source's issuer for us.
            IdentityUnavailable: It cannot be checked now.
        """
        raise Unauthenticated("This is not a logout token of an issuer that this server trusts.")

    async def verified_id_token(self, id_token: str, *, nonce: str) -> str:
        """The subject of an ID token that was issued to us for this nonce (OpenID Connect Core, 3.1.3.7).

        Raises:
            Unauthenticated: It is not one.
            IdentityUnavailable: It cannot be checked now.
        """
        raise Unauthenticated("This is not an ID token of an issuer that this server trusts.")

    async def ping(self) -> None:
        """Answer, or raise IdentityUnavailable."""
        return

    async def close(self) -> None:
        """Close what was opened."""
        return
