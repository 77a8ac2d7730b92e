"""Jobs with batches, priorities, turns and numbered changes; what is found in documents; rebuilding."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Json = sa.JSON(none_as_null=True)


def upgrade() -> None:
    with op.batch_alter_table("collections") as collections:
        collections.add_column(sa.Column("reindex", Json, nullable=True))
    with op.batch_alter_table("documents") as documents:
        for column in (
            sa.Column("properties", Json, nullable=True),
            sa.Column("given", Json, nullable=True),
            sa.Column("warnings", Json, nullable=True),
            sa.Column("expires_at", sa.Float(), nullable=True),
            sa.Column("batch_id", sa.String(64), nullable=True),
            sa.Column("parent_id", sa.String(128), nullable=True),
            sa.Column("depth", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("started_at", sa.Float(), nullable=False, server_default="0"),
            sa.Column("change", sa.BigInteger(), nullable=False, server_default="0"),
            sa.Column("built_in", sa.String(255), nullable=True),
            sa.Column("built_chunks", sa.Integer(), nullable=True),
            sa.Column("live_as", Json, nullable=True),
        ):
            documents.add_column(column)
        documents.drop_index(op.f("ix_documents_pending_not_before"))
    for columns in (
        ["pending", "priority", "uploaded_by", "not_before"],
        ["uploaded_by", "deleting", "size"],
        ["batch_id"],
        ["collection_id", "change"],
        ["collection_id", "parent_id"],
        ["expires_at"],
    ):
        op.create_index(op.f(f"ix_documents_{'_'.join(columns)}"), "documents", columns, unique=False)
    _tables()


def _tables() -> None:
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.bulk_insert(counters, [{"name": "changes", "value": 0}])
    op.create_table(
        "turns",
        sa.Column("user_id", sa.String(512), nullable=False),
        sa.Column("served_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_turns")),
    )
    op.create_table(
        "usage",
        sa.Column("user_id", sa.String(512), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "day", name=op.f("pk_usage")),
    )
    op.create_table(
        "arrivals",
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("collection_id", sa.String(64), nullable=False),
        sa.Column("document_id", sa.String(128), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_arrivals")),
    )
    columns = ["collection_id", "document_id"]
    op.create_index(op.f(f"ix_arrivals_{'_'.join(columns)}"), "arrivals", columns, unique=False)
    op.create_table(
        "discarded",
        sa.Column("store_name", sa.String(255), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("store_name", name=op.f("pk_discarded")),
    )
