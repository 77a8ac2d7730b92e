"""Milvus, embedded (milvus-lite in its own process) or a server."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, FilePath, SecretStr, model_validator
from pymilvus import AsyncMilvusClient  # type: ignore[import-untyped]

from crawler.contracts import Document
from crawler.errors import CredentialRefused, StoreCapability, StoreRefused, StoreUnavailable
from crawler.settings import Settings
from crawler.store import (
    Audience,
    Capabilities,
    ForeignHit,
    Hit,
    Layout,
    Metric,
    Outline,
    Privileges,
    Query,
    Ranker,
    Retrieval,
    Row,
    Store,
)
from crawler.stores import _filters, _foreign, _privileges, _read, _rows, _search
from crawler.stores._callers import Callers
from crawler.stores._connection import NOT_FOUND, OLD_NOT_FOUND, Connection, code, open_client

T = TypeVar("T")

CHECKED_S = 60.0
"""That the server checks who asks is looked at so often, in seconds."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_BM25_SINCE = (2, 5)


class DenseIndex(Settings):
    """The index of the embeddings (https://milvus.io/docs/index.md)."""

    type: Literal[
        "AUTOINDEX", "FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN", "DISKANN"
    ] = "AUTOINDEX"
    """The kind of index."""
    params: dict[str, int | float | str | bool] = Field(default_factory=dict)
    """Its parameters."""


class MilvusSettings(Settings):
    uri: str = Field(default="data/store", min_length=1)
    """A path: embedded, in this directory (ours alone, mode 0700); ``http(s)://host:port``: a server."""
    user: str | None = None
    """With `password`; the service credential."""
    password: SecretStr | None = None
    """With `user`."""
    token: SecretStr | None = None
    """Instead of user and password."""
    database: str | None = None
    """The server's database; its default one when not given."""
    ca_file: FilePath | None = None
    """PEM file with the authorities to trust for the server's TLS certificate."""
    client_cert_file: FilePath | None = None
    """PEM file of our own certificate, where the server asks for one."""
    client_key_file: FilePath | None = None
    """PEM file of its key."""
    server_name: str | None = None
    """What the server's certificate says, where it is not the host of ``uri``."""
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    """Of one request, in seconds."""
    index: DenseIndex = DenseIndex()
    """Of new collections."""
    search_params: dict[str, int | float | str | bool] = Field(default_factory=dict)
    """Of every search, as the index takes them."""

    @property
    def embedded(self) -> bool:
        return "://" not in self.uri

    @property
    def directory(self) -> Path:
        """Where the embedded store lives."""
        return Path(self.uri).expanduser().absolute()

    @model_validator(mode="after")
    def _consistent(self) -> MilvusSettings:
        scheme, _, rest = self.uri.partition("://")
        tls = (self.ca_file, self.client_cert_file, self.client_key_file, self.server_name)
        if not self.embedded and scheme not in ("http", "https"):
            raise ValueError("`uri` must be a path, or begin with http:// or https://")
        if not self.embedded and "@" in rest:
            raise ValueError("`uri` may hold no credentials; use `user` and `password`, or `token`")
        if (self.user is None) != (self.password is None):
            raise ValueError("`user` and `password` belong together")
        if self.token is not None and self.user is not None:
            raise ValueError("give `token`, or `user` and `password`")
        if any(tls) and scheme != "https":
            raise ValueError("TLS files and `server_name` need a `uri` that begins with https://")
        if self.client_cert_file and not (self.client_key_file and self.ca_file):
            raise ValueError("`client_cert_file` needs `client_key_file` and `ca_file`")
        if self.client_key_file and not self.client_cert_file:
            raise ValueError("`client_key_file` needs `client_cert_file`")
        return self


@dataclass(frozen=True)
class _Shape:
    dimension: int
    metric: Metric
    hybrid: bool


class Milvus(Store[MilvusSettings]):
    """Milvus, embedded or a server.

    A collection per name, its schema in ``_rows``; see there and in ``_filters`` for what is asked."""

    def __init__(self, settings: MilvusSettings) -> None:
        super().__init__(settings)
        self._connection = Connection(lambda: open_client(settings), settings.timeout_s)
        self._callers = Callers(self._as_caller)
        self._shapes: dict[str, _Shape] = {}
        self._checked_until = 0.0
        self.has_rights = not settings.embedded

    def _as_caller(self, credential: SecretStr) -> Connection:
        make = partial(open_client, self.settings, credential)
        return Connection(make, self.settings.timeout_s, of_caller=True)

    async def _by(self, credential: SecretStr | None) -> Connection:
        """The connection of a caller, or ours."""
        return self._connection if credential is None else await self._callers.of(credential)

    async def capabilities(self) -> Capabilities:
        version = str(await self._connection.call(lambda client: client.get_server_version()))
        number = re.match(r"v?(\d+)\.(\d+)", version)
        known = (int(number[1]), int(number[2])) if number else (0, 0)
        embedded = version.startswith("milvus_lite")
        return Capabilities(version=version, hybrid=embedded or known >= _BM25_SINCE, embedded=embedded)

    async def ping(self) -> None:
        await self._connection.call(lambda client: client.get_server_version())

    async def close(self) -> None:
        await self._callers.close()
        await self._connection.close()

    async def create(
        self,
        name: str,
        *,
        dimension: int,
        metric: Metric,
        retrieval: Retrieval,
        credential: SecretStr | None = None,
    ) -> None:
        """See :meth:`Store.create`; one that was begun and not finished is finished. The collection itself is
        made with the credential, its index and all else with ours.

        Raises:
            StoreCapability: ``hybrid`` on a server without BM25 (before Milvus 2.5).
            StoreRefused: It exists with another shape.
        """
        _checked(name)
        wanted = _Shape(dimension, metric, retrieval == "hybrid")
        if wanted.hybrid and not (await self.capabilities()).hybrid:
            raise StoreCapability("Hybrid retrieval needs Milvus 2.5 or later; use `retrieval: dense`.")
        if not await self._exists(name):
            schema = _rows.schema(dimension, hybrid=wanted.hybrid)
            by = await self._by(credential)
            try:
                await by.call(lambda client: client.create_collection(name, schema=schema))
            except StoreRefused:
                if not await self._exists(name):  # else another process was faster
                    raise
        if "dense" not in await self._indexed(name) or await self._shape(name) == wanted:
            await self._index(name, wanted)
        if await self._shape(name) != wanted:
            raise StoreRefused("The collection exists in the vector store with another shape.")
        await self._connection.call(lambda client: client.load_collection(name))

    async def _exists(self, name: str) -> bool:
        return await self._connection.call(lambda client: client.has_collection(name))

    async def _index(self, name: str, shape: _Shape) -> None:
        index = self.settings.index
        there = await self._indexed(name)
        wanted = _rows.indexes(shape.metric, index.type, index.params, hybrid=shape.hybrid)
        missing = {field: params for field, params in wanted.items() if field not in there}
        # Together, since pymilvus waits half a second for each.
        create = [partial(_create_index, name=name, params=params) for params in missing.values()]
        done = await asyncio.gather(*(self._connection.call(one) for one in create), return_exceptions=True)
        failed = [error for error in done if error is not None]
        if failed and not missing.keys() <= await self._indexed(name):  # else another process was faster
            raise failed[0]

    async def _indexed(self, name: str) -> set[str]:
        return set(await self._connection.call(lambda client: client.list_indexes(name)))

    async def _shape(self, name: str) -> _Shape:
        if name not in self._shapes:
            described = await self._connection.call(lambda client: client.describe_collection(name))
            index = await self._connection.call(lambda client: client.describe_index(name, "dense"))
            fields = {field["name"]: field for field in described["fields"]}
            self._shapes[name] = _Shape(
                int(fields["dense"]["params"]["dim"]), index["metric_type"], "sparse" in fields
            )
        return self._shapes[name]

    async def drop(self, name: str, *, credential: SecretStr | None = None) -> None:
        _checked(name)
        self._shapes.pop(name, None)
        by = await self._by(credential)
        try:
            await by.call(lambda client: client.drop_collection(name))
        except StoreRefused as error:
            if code(error) not in (OLD_NOT_FOUND, NOT_FOUND):
                raise

    async def visible(self, credential: SecretStr) -> frozenset[str]:
        if self.settings.embedded:
            return await super().visible(credential)
        await self._checks_who_asks()
        by = await self._by(credential)
        return frozenset(await by.call(lambda client: client.list_collections()))

    async def _checks_who_asks(self) -> None:
        """That a credential which nobody has is refused: else any name would be believed.

        Raises:
            StoreUnavailable: It is not, so the server's authorization is off.
        """
        if time.monotonic() < self._checked_until:
            return
        nobody = self._as_caller(SecretStr(f"{secrets.token_hex(16)}:{secrets.token_hex(16)}"))
        try:
            await nobody.call(lambda client: client.list_collections())
        except CredentialRefused:
            self._checked_until = time.monotonic() + CHECKED_S
            return
        finally:
            await nobody.close()
        raise StoreUnavailable(
            "The vector store does not check who asks it, so its rights cannot be told. Tell the operator: "
            "Milvus's `common.security.authorizationEnabled` must be true."
        )

    async def privileges(self, credential: SecretStr) -> Privileges:
        """See :meth:`Store.privileges`. An API key does not say whose it is: nothing is known of it."""
        user, colon, _ = credential.get_secret_value().partition(":")
        if not (user and colon):
            return Privileges()
        return await _privileges.of_user(self._connection, user, self.settings.database or "default")

    async def names(self) -> frozenset[str]:
        return frozenset(await self._connection.call(lambda client: client.list_collections()))

    async def outline(self, name: str, layout: Layout) -> Outline:
        return await _foreign.outline(self._connection, name, layout)

    async def search_foreign(
        self, name: str, layout: Layout, vector: Sequence[float], limit: int
    ) -> list[ForeignHit]:
        return await _foreign.search(self._connection, name, layout, vector, limit)

    async def write(self, document: Document) -> int:
        name = _checked(document.collection)
        _filters.of_document(document.document_id, document.revision)
        written = 0
        for rows in await asyncio.to_thread(lambda: list(_rows.batches(document))):
            await self._connection.call(partial(_upsert, name=name, rows=rows))
            written += len(rows)
        await self._flush(name)
        return written

    async def _flush(self, name: str) -> None:
        # milvus-lite scans unflushed rows in Python. A server answers when a write is durable, seals
        # segments as it sees fit, and by default refuses to flush a collection twice in ten seconds.
        if self.settings.embedded:
            await self._connection.call(lambda client: client.flush(name))

    async def remove(self, name: str, document_id: str, *, keep: str | None = None) -> None:
        _checked(name)
        expression = _filters.of_document(document_id, without=keep)
        await self._connection.call(lambda client: client.delete(name, filter=expression))
        await self._flush(name)

    async def count(self, name: str, document_id: str | None = None, revision: str | None = None) -> int:
        expression = _filters.of_document(document_id, revision) if document_id is not None else ""
        [row] = await self._connection.loaded(
            _checked(name),
            lambda client: client.query(
                name, filter=expression, output_fields=["count(*)"], consistency_level="Strong"
            ),
        )
        return int(row["count(*)"])

    async def search(self, name: str, query: Query, audience: Audience) -> list[Hit]:
        """See :meth:`Store.search`. Scores: `dense`: the cosine or inner product within 0..1, or 1/(1+d)
        for the distance d of L2; `bm25`: s/(s+10) for the score s; `rrf`: the share of 2/61, which a
        passage gets that both searches have first. In a collection without BM25 `rrf` is `dense`.

        Raises:
            FilterError: A filter that names an unknown field or a wrong type.
            StoreCapability: `bm25` in a collection without it.
            StoreRefused: No such collection; no query vector, or one of another dimension.
        """
        _checked(name)
        if not audience:
            return []
        expression = _filters.within(audience, query.filters, query.fields)
        shape = await self._shape(name)
        ranker: Ranker = "dense" if query.ranker == "rrf" and not shape.hybrid else query.ranker
        if ranker == "bm25" and not shape.hybrid:
            raise StoreCapability("This collection has no keyword index; use the ranker `dense`.")
        if ranker != "bm25" and (query.vector is None or len(query.vector) != shape.dimension):
            raise StoreRefused("The query's embedding does not fit the collection's embedding model.")
        found = await self._connection.loaded(
            name, _search.request(name, query, ranker, expression, self.settings.search_params)
        )
        return [
            _rows.hit(row["entity"], _search.score(ranker, shape.metric, row["distance"])) for row in found[0]
        ]

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
        _checked(name)
        if not audience:
            return []
        base = f"{_filters.of_document(document_id, revision)} and {_filters.admitted(audience)}"
        return await _read.passages(self._connection, name, base, pages, limit)

    def rows(self, name: str, revisions: Mapping[str, str]) -> AsyncIterator[Row]:
        return _read.rows(self._connection, _checked(name), revisions)

    async def write_rows(self, name: str, rows: Sequence[Row]) -> None:
        """See :meth:`Store.write_rows`.

        Raises:
            StoreRefused: Not rows of a store of this kind, or of another dimension.
        """
        dimension = (await self._shape(_checked(name))).dimension
        for batch in await asyncio.to_thread(lambda: list(_rows.restored(name, rows, dimension))):
            await self._connection.call(partial(_upsert, name=name, rows=batch))
        await self._flush(name)


async def _create_index(client: AsyncMilvusClient, name: str, params: Any) -> None:
    await client.create_index(name, params)


async def _upsert(client: AsyncMilvusClient, name: str, rows: list[dict[str, Any]]) -> None:
    await client.upsert(name, rows)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a physical name has 1 to 255 letters, digits and `_`, and begins with no digit")
    return name
