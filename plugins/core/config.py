"""Everything that YAML steers, as one frozen tree; read from the files of the folder `config/`.

Plugins are named by ``use``; what stands beside it are that plugin's own settings, read by the
composition root together with all other mistakes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, SecretStr, field_validator

from crawler.errors import ConfigError
from crawler.settings import Settings, read_yaml, validate
from crawler.store import FieldType, Layout, Metric
from plugins.core.chat_config import ChatConfig
from plugins.core.identity_config import IdentityConfig
from plugins.core.plugin import Plugin

FOLDER_VARIABLE = "COLLECTIONS_CONFIG"
"""The environment variable that names the folder; by default `config` under the working directory."""


class Policy(Settings):
    """Rights to all collections whose name matches a pattern."""

    names: str = "*"
    """A shell pattern: `*`, `hr-*`."""
    discover: list[str] = []
    """Subjects that see them in lists."""
    query: list[str] = []
    """Subjects that may search them."""
    add: list[str] = []
    """Subjects that may upload to them."""
    manage: list[str] = []
    """Subjects that may do everything with them."""


class Creation(Settings):
    """Who may create collections, by the pattern of the new name."""

    names: str = "*"
    """A shell pattern of the new name."""
    subjects: list[str] = Field(min_length=1)
    """Subjects: `user:<source>/<name>`, `group:<source>/<path>`, `role:<source>/<name>` or `*`."""


class Adoption(Settings):
    """Collections that others made in Milvus, to be listed and searched here; read only."""

    names: str = Field(min_length=1)
    """A shell pattern of their names in Milvus: `legacy_*`."""
    rights: Literal["bundle", "milvus"] = "bundle"
    """Who says what one may do with them: this file's `policy`, or Milvus's own roles."""
    embedding_model: str = Field(min_length=1)
    """The model name of this proxy that their vectors were computed with."""
    fields: Layout
    """Which of their fields holds what: `text` and `vector`, and where there are `metadata` (JSON), `source`,
    `title`, `page` and `id` (the primary key)."""
    metric: Metric | None = None
    """How their vectors are compared, to be sure; by default what their index says."""


class CollectionsConfig(Settings):
    rights: Literal["bundle", "milvus"] = "bundle"
    """Who says what one may do with new collections: `policy` and their own grants, or Milvus's own roles, by
    the caller's Milvus credential (needs a Milvus server)."""
    privileges_cache_s: float = Field(default=30.0, ge=0, le=60)
    """How long what Milvus says of a caller's roles counts, in seconds."""
    adopt: list[Adoption] = []
    """Collections that others made in Milvus; the first entry that matches a name counts."""
    policy: list[Policy] = []
    """Rights by the name of a collection; they add to what each collection grants itself."""
    create: list[Creation] = []
    """Who may create collections; nobody by default."""
    embedding_model: str = "local/minilm"
    """The model of new collections that name none."""
    metric: Metric = "COSINE"
    """How vectors of new collections are compared."""
    fields: dict[str, FieldType] = {}
    """Attributes of documents that filters may name, beside the built-in ones."""


ChatRoute = Literal["/v1/chat/completions", "/v1/responses", "/v1/messages"]
CHAT_ROUTES: tuple[ChatRoute, ...] = ("/v1/chat/completions", "/v1/responses", "/v1/messages")


class ExchangesConfig(Settings):
    """What was asked and answered in chats, kept for audits."""

    enabled: bool = False
    """Keep them. While they cannot be written down, no chat is answered."""
    routes: tuple[ChatRoute, ...] = CHAT_ROUTES
    """Of these APIs, their other addresses included."""
    retention_days: float = Field(default=30.0, gt=0)
    """Older ones are deleted, also when `enabled` is false again."""
    redact: list[str] = []
    """Regular expressions (Python's); what they match in a text is not kept."""
    max_bytes: int = Field(default=65_536, ge=1024)
    """Of a request, and of each part of an answer, as JSON in UTF-8; what is beyond is cut."""

    @field_validator("redact")
    @classmethod
    def _are_patterns(cls, value: list[str]) -> list[str]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"is not a regular expression: {error}") from error
        return value


class AuditConfig(Settings):
    readers: list[str] = []
    """Subjects that may read the audit log (`GET /v1/audit`) and what is kept of chats; nobody by default."""
    exchanges: ExchangesConfig = ExchangesConfig()
    """What was asked and answered in chats, kept for audits; nothing by default."""


REGISTRY = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}(:[0-9]{1,5})?$"
"""A registry's host, with its port where it is not 443."""


class OllamaConfig(Settings):
    """Managing the models of an Ollama server, through `/v1/ollama/models`."""

    base_url: str | None = None
    """Where Ollama is: `http://127.0.0.1:11434`, or `os.environ/OLLAMA_BASE_URL`."""
    managers: list[str] = []
    """Subjects that may list, pull and delete its models; nobody by default."""
    registries: list[Annotated[str, Field(pattern=REGISTRY)]] = []
    """Hosts (`hf.co`) that Ollama may be sent to for a model, beside its own registry."""
    insecure_registries: list[Annotated[str, Field(pattern=REGISTRY)]] = []
    """As `registries`, without TLS or with a certificate that nobody vouches for."""
    timeout_s: float = Field(default=30.0, gt=0)
    """How long Ollama may take to answer."""
    pull_timeout_s: float = Field(default=6 * 3600.0, gt=0)
    """How long one pull may take."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        url = urlsplit(value or "http://unset")
        if url.scheme not in ("https", "http") or not url.hostname or url.query or url.fragment:
            raise ValueError("must be Ollama's address: `http://127.0.0.1:11434`")
        return value.rstrip("/") if value else None


class StorageConfig(Settings):
    """Where things are kept."""

    data_dir: Path = Path("data")
    """Everything of ours is under it unless said otherwise; it may be deleted to start anew."""
    database: SecretStr | None = None
    """SQLAlchemy URL (`postgresql+asyncpg://...`); by default SQLite in the data directory."""
    store: Plugin = Plugin(use="milvus")
    """The vector store. Without a `uri` it is embedded, in the data directory."""
    originals: Plugin = Plugin(use="folder")
    """Where the files are kept as they were uploaded: `folder` (in the data directory), or `s3`."""


class Quota(Settings):
    """How much somebody may have and upload; the first entry that names a person counts."""

    subjects: list[str] = Field(min_length=1)
    """Subjects: `user:<source>/<name>`, `group:<source>/<path>`, `role:<source>/<name>` or `*`."""
    max_documents: int | None = Field(default=None, ge=0)
    """Over all collections; 413 beyond it."""
    max_bytes: ByteSize | None = Field(default=None, ge=0)
    """Of all their documents (`10GiB`); 413 beyond it."""
    max_bytes_per_day: ByteSize | None = Field(default=None, ge=0)
    """Uploaded in a day (UTC); 429 beyond it."""


class CollectionQuota(Settings):
    """How much may be in a collection; the first entry that matches its name counts."""

    names: str = "*"
    """A shell pattern: `*`, `hr-*`."""
    max_documents: int | None = Field(default=None, ge=0)
    """413 beyond it."""
    max_bytes: ByteSize | None = Field(default=None, ge=0)
    """Of all its documents; 413 beyond it."""


class Priority(Settings):
    """Whose documents are processed earlier or later; the first entry that names a person counts."""

    subjects: list[str] = Field(min_length=1)
    """As of quotas."""
    priority: int = Field(ge=-100, le=100)
    """Higher is earlier; 0 for those whom no entry names."""


class LimitsConfig(Settings):
    max_upload_bytes: int = Field(default=100 * 2**20, ge=1)
    """Of one file."""
    max_files: int = Field(default=100, ge=1)
    """In one request."""
    max_wait_s: float = Field(default=60.0, gt=0)
    """How long `?wait=true` waits."""
    quotas: list[Quota] = []
    """How much people may have and upload; without an entry as much as they like."""
    collections: list[CollectionQuota] = []
    """How much may be in a collection; without an entry as much as there is room."""


class WorkerConfig(Settings):
    embedded: bool = True
    """Start a worker as a child of the proxy; False where workers run by themselves."""
    proxy_url: str | None = None
    """Where the worker finds this proxy for embeddings by models that are not `local/`."""
    api_key: SecretStr | None = None
    """The key it uses there."""
    lease_s: float = Field(default=60.0, gt=0)
    """A job whose worker gives no sign for so long is taken over."""
    max_attempts: int = Field(default=5, ge=1)
    """Tries of a job before it ends as failed."""
    concurrency: int = Field(default=2, ge=1)
    """Documents that are converted at once, and as many that are embedded; twice as many are in work."""
    priorities: list[Priority] = []
    """Whose documents go first."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Where the worker answers `/metrics` to Prometheus, to everybody; by default nowhere."""
    metrics_host: str = "127.0.0.1"
    """The address that it listens on there."""


class ShutdownConfig(Settings):
    """What a proxy does on SIGTERM."""

    drain_s: float = Field(default=0.0, ge=0)
    """How long it goes on taking requests while it says that it is not ready: longer than load balancers need
    to notice."""
    grace_s: float = Field(default=60.0, gt=0)
    """How long answers under way may take after that, before they are cut off."""


class ReloadConfig(Settings):
    watch: bool = False
    """Take changed files up by themselves; else on SIGHUP and `POST /api/admin/reload` only."""


class CacheConfig(Settings):
    """What is kept to answer sooner; LiteLLM's response cache has settings of its own."""

    query_embeddings_max_bytes: ByteSize = Field(default=ByteSize(16 * 2**20), ge=0)
    """Memory of each process for the embeddings of questions (`16MiB`); 0 = none are kept."""


class ToolEntry(Plugin):
    allow: list[str] = []
    """Subjects that may run it; nobody by default."""


class Config(Settings):
    """The whole configuration. Every YAML file of the folder holds some of its keys."""

    folder: Path
    files: dict[str, Path] = {}
    """The file that each key came from, for messages."""
    identity: IdentityConfig
    collections: CollectionsConfig = CollectionsConfig()
    audit: AuditConfig = AuditConfig()
    ollama: OllamaConfig = OllamaConfig()
    storage: StorageConfig = StorageConfig()
    tools: list[ToolEntry] = []
    pipelines: dict[str, dict[str, Any]] = {"default": {}}
    """Named pipelines: the crawler reads each as its `CrawlerConfig`."""
    limits: LimitsConfig = LimitsConfig()
    worker: WorkerConfig = WorkerConfig()
    chat: ChatConfig = ChatConfig()
    cache: CacheConfig = CacheConfig()
    shutdown: ShutdownConfig = ShutdownConfig()
    reload: ReloadConfig = ReloadConfig()


def folder() -> Path:
    """The configuration folder of this process."""
    return Path(os.environ.get(FOLDER_VARIABLE, "config")).absolute()


def load(path: Path, leave_out: Collection[str] | None = None) -> Config:
    """Read the folder's YAML files as one configuration.

    Args:
        path: The folder.
        leave_out: Keys that are read as if no file had them; files that are no YAML are then left out, too.
            Without the identity there are no sources.

    Raises:
        ConfigError: With every mistake of every file, each with the file and the setting's path.
    """
    files = sorted(path.glob("*.yaml"))
    if not files:
        raise ConfigError([f"{path}: there is no YAML file in this folder; set {FOLDER_VARIABLE}"])
    mistakes: list[str] = []
    content: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    lenient, unread = leave_out is not None, False
    for file in files:
        try:
            for key, value in read_yaml(file).items():
                if key in origin:
                    mistakes.append(f"{file}: {key}: is already set in {origin[key]}")
                if key not in (leave_out or ()):
                    content[key], origin[key] = value, file
        except ConfigError as error:
            unread = True
            if not lenient:
                mistakes.extend(error.mistakes)
    if (lenient or unread) and "identity" not in content:
        content["identity"] = IdentityConfig.model_construct(sources=[])
    try:
        config = validate(Config, {**content, "folder": path, "files": origin}, "")
    except ConfigError as error:
        mistakes.extend(locate(line, origin, path) for line in error.mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return config


def locate(mistake: str, origin: dict[str, Path], path: Path) -> str:
    """``.identity.sources[0].use: ...`` with the file that it is in before it."""
    place = mistake.lstrip(".")
    key = re.split(r"[.\[:]", place, maxsplit=1)[0]
    return f"{origin.get(key, path)}: {place}"
