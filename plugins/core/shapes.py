"""What clients send and get: the JSON of `/v1/collections`, `/v1/jobs` and `/v1/tools`.

Documents carry the fields of OpenAI's vector-store files and search answers as OpenAI's vector-store
search does: https://platform.openai.com/docs/api-reference/vector-stores
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crawler.store import Filter
from plugins.core.identity import Right

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Without NUL, which Postgres cannot hold."""
Scalar = Text | int | float | bool
Attributes = dict[str, Scalar]


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Standing(Shape):
    """What LiteLLM lets someone do; a limit that is null is not set."""

    user_role: str | None
    """LiteLLM's role."""
    models: list[str] | None
    """Model names; null = all of this proxy."""
    rpm_limit: int | None
    """Requests a minute."""
    tpm_limit: int | None
    """Tokens a minute."""
    max_parallel_requests: int | None
    max_budget: float | None
    """US dollars."""
    spend: float
    """US dollars so far."""


class Access(Shape):
    """Subjects to which each right is granted: `user:<source>/<name>`, `group:...`, `role:...`, `*`."""

    discover: list[str] = []
    query: list[str] = []
    add: list[str] = []
    manage: list[str] = []


class NewCollection(Shape):
    name: str = Field(description="Unique; 1 to 255 characters, none of them a control character")
    description: Text = Field(default="", max_length=2000)
    metadata: Attributes = Field(default={}, max_length=16)
    access: Access = Access()
    embedding_model: str | None = Field(default=None, description="A model name of this proxy")
    retrieval: Literal["auto", "hybrid", "dense"] = "auto"
    pipeline: str = "default"


class CollectionPatch(Shape):
    description: Text | None = Field(default=None, max_length=2000)
    metadata: Attributes | None = Field(default=None, max_length=16)
    access: Access | None = Field(default=None, description="Replaces all grants of the collection")


class Reindex(Shape):
    """As what a collection is to be built anew; what is left out stays as it is."""

    embedding_model: str | None = Field(default=None, description="A model name of this proxy")
    pipeline: str | None = Field(default=None, description="One of `GET /v1/pipelines`")
    retrieval: Literal["auto", "hybrid", "dense"] | None = None


class Built(Shape):
    done: int
    total: int


class ReindexError(Shape):
    code: str
    message: str
    document_id: str | None
    """The document that could not be built; null where none could."""


class ReindexView(Shape):
    """What a collection is being built anew as, beside what searches find meanwhile."""

    embedding_model: str
    dimension: int
    pipeline: str
    retrieval: str
    documents: Built
    started_at: int
    """Seconds since 1970 (UTC)."""
    last_error: ReindexError | None
    """Why it does not go on; it is tried again until it does, or is cancelled."""


class CollectionView(Shape):
    id: str
    object: Literal["collection"] = "collection"
    name: str
    description: str
    metadata: Attributes
    embedding_model: str
    dimension: int
    retrieval: str
    documents: int
    chunks: int
    created_at: int
    """Seconds since 1970 (UTC)."""
    permissions: list[Right]
    """The caller's own rights to it."""
    access: Access | None = None
    """Its grants; only for those who may manage it."""
    pipeline: str
    """How its documents are processed; `GET /v1/pipelines` shows it."""
    reindex: ReindexView | None = None
    """Only for those who may manage it; null when none is going on."""


class RightView(Shape):
    allowed: bool
    rule: str
    """What decided: a line of the policy (`collections.policy[0].query: group:keycloak/staff`), a grant of
    the collection (`grant of query: user:keycloak/alice`), or that nothing grants it."""


class EffectiveAccess(Shape):
    """What somebody may do with a collection, and why."""

    object: Literal["collection.effective_access"] = "collection.effective_access"
    collection_id: str
    user: str
    """The subject: `user:<source>/<name>`."""
    known_from: Literal["request", "directory", "sign_in", "nothing"]
    """Where `groups` and `roles` are from: this request's sign-in, the issuer's directory, the person's last
    sign-in that was noted, or nowhere: then only grants to the user by name and to everyone are counted."""
    known_at: float | None
    """When they were so, in seconds since 1970 (UTC)."""
    groups: list[str]
    roles: list[str]
    rights: dict[Right, RightView]


class PersonView(Shape):
    object: Literal["user"] = "user"
    subject: str
    """What a grant takes: `user:<source>/<name>`."""
    source: str
    name: str
    email: str | None
    seen_at: float | None
    """The last sign-in that was noted, in seconds since 1970 (UTC); null for those listed by their issuer."""


class PersonList(Shape):
    object: Literal["list"] = "list"
    data: list[PersonView]
    has_more: bool = False


class RoleView(Shape):
    object: Literal["role", "group"]
    subject: str
    """What a grant takes: `role:<source>/<name>` or `group:<source>/<path>`."""
    source: str
    name: str


class RoleList(Shape):
    object: Literal["list"] = "list"
    data: list[RoleView]
    has_more: bool = False


class AuditEntry(Shape):
    object: Literal["audit.entry"] = "audit.entry"
    id: int
    """Later entries have higher ones."""
    at: float
    """Seconds since 1970 (UTC)."""
    user: str
    """`<source>/<name>`."""
    peer: str
    """The address that the request came from."""
    request_id: str
    action: str
    """`collection.change` and the like; of what was refused the method and the route."""
    result: Literal["allowed", "refused"]
    collection_id: str | None
    document_id: str | None
    detail: dict[str, Any]


class AuditList(Shape):
    object: Literal["list"] = "list"
    data: list[AuditEntry]
    has_more: bool = False


class ExchangeEntry(Shape):
    object: Literal["audit.exchange"] = "audit.exchange"
    id: int
    """Later entries have higher ones."""
    at: float
    """When it was asked, in seconds since 1970 (UTC)."""
    user: str
    """`<source>/<name>`."""
    request_id: str
    route: str
    model: str | None
    request: dict[str, Any]
    """`messages`, or `input` and `instructions`, or `system`: as they were sent, without files' bytes."""
    answer: dict[str, Any] | None
    """`status`, `text`, `tool_calls` of the client's tools, and where the `passages` are that it rests on."""


class ExchangeList(Shape):
    object: Literal["list"] = "list"
    data: list[ExchangeEntry]
    has_more: bool = False


class RankingOptions(Shape):
    ranker: Literal["auto", "rrf", "dense", "bm25"] = "auto"
    """`rrf` joins vectors (`dense`) and words (`bm25`); `auto` is `rrf` where the collection has both."""
    score_threshold: float = Field(default=0.0, ge=0.0, le=1.0)
    """Passages below it are left out. Scores of different rankers cannot be compared: `dense` is the
    similarity, `bm25` s / (s + 10) of its score s, and `rrf` goes by places: 1 = first by both."""


class SearchRequest(Shape):
    query: str = Field(min_length=1, max_length=8000)
    filters: Filter | None = None
    """OpenAI's comparison and compound filters over `page`, `filename`, `title`, `language`, `document_id`,
    `created_at` (ISO 8601 or seconds) and the fields that `collections.fields` declares."""
    max_num_results: int = Field(default=10, ge=1, le=50)
    ranking_options: RankingOptions = RankingOptions()


class TextContent(Shape):
    type: Literal["text"] = "text"
    text: str


class SearchResult(Shape):
    file_id: str
    filename: str
    score: float
    attributes: dict[str, Any]
    content: list[TextContent]


class SearchPage(Shape):
    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchResult]
    has_more: bool = False
    next_page: str | None = None


class CollectionList(Shape):
    object: Literal["list"] = "list"
    data: list[CollectionView]
    has_more: bool = False


class Deleted(Shape):
    id: str
    object: str
    deleted: Literal[True] = True


class FunctionCall(Shape):
    name: str
    arguments: str | dict[str, Any] = "{}"


class ToolCall(Shape):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class RunTools(Shape):
    """One tool by `name` and `arguments`, or several as OpenAI `tool_calls`."""

    name: str | None = None
    arguments: dict[str, Any] | str | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, min_length=1, max_length=32)
    metadata: dict[str, Any] = {}


class ToolAnswer(BaseModel):
    """MCP's CallToolResult: https://modelcontextprotocol.io/specification/2025-06-18/server/tools"""

    model_config = ConfigDict(frozen=True)

    content: list[TextContent]
    structuredContent: dict[str, Any] = {}  # noqa: N815 - MCP's name
    isError: bool = False  # noqa: N815 - MCP's name
    tool_call_id: str | None = None
    """Set when the request had `tool_calls`."""


class ToolAnswers(Shape):
    object: Literal["list"] = "list"
    data: list[ToolAnswer]
