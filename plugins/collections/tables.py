"""The SQL tables: collections, who may do what with them, their documents (each row is its own job).

Times are seconds since 1970 (UTC). `migrations/` makes these tables; a test keeps the two equal.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

Json = JSON(none_as_null=True)
FAILED = text("status = 'failed'")
"""Of documents: the text that a query must have, too, for the partial index to serve it."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    }
)

collections = Table(
    "collections",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), unique=True),  # null once it is being deleted: the name is free at once
    Column("state", String(16), nullable=False),  # creating | ready | deleting; gone: adopted, not there
    Column("kind", String(16), nullable=False),
    Column("description", Text, nullable=False),
    Column("metadata", Json, nullable=False),
    Column("pipeline", String(255), nullable=False),
    Column("embedding_model", String(255), nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("metric", String(16), nullable=False),
    Column("retrieval", String(16), nullable=False),
    Column("store_name", String(255), nullable=False),
    Column("created_by", String(512), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("written_at", Float, nullable=False),  # when the store last got passages of it
    Column("reindex", Json),  # what it is being rebuilt as; null: nothing is going on
    Column("adopted", Json),  # the field mapping of a collection that others made; null: it is ours
)

grants = Table(
    "grants",
    metadata,
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True),
    Column("right", String(16), primary_key=True),
    Column("subject", String(512), primary_key=True),
    Index(None, "subject"),
)

audiences = Table(
    "audiences",
    metadata,
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("subjects", Json, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("revision", String(32), nullable=False),  # the one that was uploaded last
    Column("live_revision", String(32)),  # the one that searches find
    Column("kind", String(16), nullable=False),  # file | markdown | url
    Column("filename", String(255), nullable=False),
    Column("media_type", String(255)),
    Column("url", Text),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("attributes", Json, nullable=False),
    Column("acl", Json),
    Column("acl_key", String(64), nullable=False),
    Column("pipeline", String(64), nullable=False),  # digest of the pipeline's settings
    Column("title", Text),
    Column("pages", Integer),
    Column("chunks", Integer, nullable=False),
    Column("uploaded_by", String(512), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("deleting", Boolean, nullable=False),
    Column("stale", Boolean, nullable=False),  # the store may hold passages of other revisions
    Column("pending", Boolean, nullable=False),  # a worker has something to do here
    Column("job_id", String(64), nullable=False, unique=True),
    Column("status", String(16), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("worker", String(64)),
    Column("lease_until", Float, nullable=False),  # 0 = nobody works on it
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("properties", Json),  # what is known of it
    Column("given", Json),  # those of them that came with its markdown, and are not looked for
    Column("warnings", Json),
    Column("expires_at", Float),  # from then on it is as if it were deleted
    Column("batch_id", String(64)),  # one upload's documents have the same
    Column("parent_id", String(128)),  # the mail or archive that it was in
    Column("depth", Integer, nullable=False),  # 0 = uploaded, 1 = was in that, ...
    Column("priority", Integer, nullable=False),  # higher is earlier
    Column("started_at", Float, nullable=False),  # when work on this revision began; 0 = not yet
    Column("change", BigInteger, nullable=False),  # numbers every change of its job, over all documents
    Column("built_in", String(255)),  # the place in the store, while reindexing, that has the live revision
    Column("built_chunks", Integer),  # how many passages it has there
    Column("traceparent", String(64)),  # the span of the upload (W3C Trace Context), which its job continues
    Column("live_as", Json),  # names and audience of the live revision, while it is not the one uploaded last
    Index(None, "collection_id", "created_at"),
    Index(None, "collection_id", "sha256"),
    Index(None, "pending", "priority", "uploaded_by", "not_before"),  # what waits, without reading the rest
    Index(None, "uploaded_by", "deleting", "size"),  # what somebody has
    Index(None, "batch_id"),
    # How a collection stands, without reading its rows.
    Index("ix_documents_state", "collection_id", "change", "live_revision", "deleting", "expires_at"),
    Index(None, "collection_id", "parent_id"),
    Index(None, "expires_at"),
    Index("ix_documents_failed", "stage", sqlite_where=FAILED, postgresql_where=FAILED),  # for counting them
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

turns = Table(
    "turns",  # when somebody's document was taken last, so that all have their turn
    metadata,
    Column("user_id", String(512), primary_key=True),
    Column("served_at", Float, nullable=False),
)

usage = Table(
    "usage",  # what somebody uploaded on a day
    metadata,
    Column("user_id", String(512), primary_key=True),
    Column("day", Integer, primary_key=True),  # since 1970-01-01 (UTC)
    Column("bytes", BigInteger, nullable=False),
)

arrivals = Table(
    "arrivals",  # revisions whose file may be there before their row is
    metadata,
    Column("revision", String(64), primary_key=True),
    Column("collection_id", String(64), nullable=False),
    Column("document_id", String(128), nullable=False),
    Column("since", Float, nullable=False),
    Index(None, "collection_id", "document_id"),
)

discarded = Table(
    "discarded",  # places in the store that nothing names any more, to be dropped
    metadata,
    Column("store_name", String(255), primary_key=True),
    Column("since", Float, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("seen_at", Float, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("user_id", String(512), nullable=False),  # <source>/<name>
    Column("peer", String(64), nullable=False),  # the address that the request came from
    Column("request_id", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("result", String(16), nullable=False),  # allowed | refused
    Column("collection_id", String(64)),  # no foreign key: what is gone stays in the log
    Column("document_id", String(128)),
    Column("detail", Json, nullable=False),
    Index(None, "collection_id", "id"),
    Index(None, "user_id", "id"),
)

people = Table(
    "people",
    metadata,
    Column("source", String(63), primary_key=True),
    Column("username", String(255), primary_key=True),
    Column("email", String(320)),
    Column("groups", Json, nullable=False),
    Column("roles", Json, nullable=False),
    Column("seen_at", Float, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),  # sha256 of the cookie's id
    Column("source", String(63), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("issuer_session", String(255)),  # OIDC `sid`
    Column("sealed", Text, nullable=False),  # the tokens, under a key that only the cookie has
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("refreshing_until", Float, nullable=False),  # 0 = nobody is getting new tokens for it
    Index(None, "source", "subject"),
    Index(None, "expires_at"),
)

revocations = Table(
    "revocations",
    metadata,
    Column("key", String(64), primary_key=True),  # sha256 of source and session, or of source and subject
    Column("before", Float, nullable=False),  # tokens issued before are refused
    Column("expires_at", Float, nullable=False),
    Index(None, "expires_at"),
)

attempts = Table(
    "attempts",  # passwords that were tried and were not right
    metadata,
    Column("key", String(64), primary_key=True),  # sha256 of an account, an address, or both
    Column("failures", Integer, nullable=False),
    Column("last", Float, nullable=False),
    Index(None, "last"),
)

processes = Table(
    "processes",  # that answer or work, and the configuration that each runs
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),  # proxy | worker
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("reload", BigInteger, nullable=False),  # the number of the last reload that it heard of
    Column("digest", String(64), nullable=False),  # of the configuration that it runs
    Column("mistakes", Json),  # why it does not run what that reload asked for
)

leaders = Table(
    "leaders",  # which process does what only one need do
    metadata,
    Column("duty", String(64), primary_key=True),
    Column("process_id", String(64), nullable=False),
    Column("until", Float, nullable=False),
)

exchanges = Table(
    "exchanges",  # requests and answers, where they are kept
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("user_id", String(512), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("route", String(255), nullable=False),
    Column("model", String(255)),
    Column("request", Json, nullable=False),
    Column("answer", Json),
    Index(None, "user_id", "id"),
    Index(None, "at"),
)
