"""Money: the ledger of calls, quotas with their slices, roll-ups, the daily check; keys that belong to one user."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
REVISIONS = sa.table("revisions", sa.column("name", sa.String), sa.column("value", sa.BigInteger))


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.add_column("users", sa.Column("upstream_choice", ascii_text(16)))
    op.add_column("api_keys", sa.Column("owner_id", sa.BigInteger))
    op.create_index("ix_api_keys_owner_id", "api_keys", ["owner_id"])
    op.create_table(
        "usage_ledger",
        sa.Column("request_id", ascii_text(32), primary_key=True),
        sa.Column("attempt", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("process_id", ascii_text(32), nullable=False),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("client_key_id", sa.BigInteger),
        sa.Column("pool_key_id", sa.BigInteger),
        sa.Column("model", ascii_text(255), nullable=False),
        sa.Column("is_stream", sa.Boolean(name="usage_ledger_is_stream"), nullable=False),
        sa.Column("state", ascii_text(12), nullable=False),
        sa.Column("source", ascii_text(12)),
        sa.Column("user_quota_id", sa.BigInteger),
        sa.Column("key_quota_id", sa.BigInteger),
        sa.Column("reserved_nano", sa.BigInteger, nullable=False),
        sa.Column("estimate_nano", sa.BigInteger, nullable=False),
        sa.Column("cost_nano", sa.BigInteger),
        sa.Column("generation_id", ascii_text(64), unique=True),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("is_last", sa.Boolean(name="usage_ledger_is_last"), nullable=False),
        sa.Column("http_status", sa.SmallInteger),
        sa.Column("outcome", ascii_text(16)),
        sa.Column("first_byte_ms", sa.Integer),
        sa.Column("total_ms", sa.Integer),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("settled_at", TIME),
        sa.Column("next_check_at", TIME, index=True),
        sa.Column("checks", sa.SmallInteger, nullable=False),
        sa.Index("usage_ledger_user", "user_id", "request_id"),
        sa.Index("usage_ledger_model", "model", "request_id"),
        sa.Index("usage_ledger_pool_key", "pool_key_id", "request_id"),
        **OPTIONS,
    )
    op.create_table(
        "quotas",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("subject", ascii_text(32), nullable=False, unique=True),
        sa.Column("limit_nano", sa.BigInteger),
        sa.Column("soft_limit_nano", sa.BigInteger),
        sa.Column("period", ascii_text(8), nullable=False),
        sa.Column("recovery", ascii_text(8), nullable=False),
        sa.Column("is_default", sa.Boolean(name="quotas_is_default"), nullable=False),
        sa.Column("window_start", TIME, nullable=False),
        sa.Column("spent_nano", sa.BigInteger, nullable=False),
        sa.Column("reserved_nano", sa.BigInteger, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "quota_slices",
        sa.Column("process_id", ascii_text(32), primary_key=True),
        sa.Column("quota_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("nano", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "usage_rollups",
        sa.Column("period", ascii_text(1), primary_key=True),
        sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("start", TIME, primary_key=True),
        sa.Column("client_key_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("pool_key_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("model", ascii_text(255), primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost_nano", sa.BigInteger, nullable=False),
        sa.Column("unknown", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "usage_checks",
        sa.Column("day", TIME, primary_key=True),
        sa.Column("pool_key_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("our_nano", sa.BigInteger, nullable=False),
        sa.Column("activity_nano", sa.BigInteger),
        sa.Column("our_total_nano", sa.BigInteger, nullable=False),
        sa.Column("usage_nano", sa.BigInteger),
        sa.Column("checked_at", TIME, nullable=False),
        **OPTIONS,
    )
    op.bulk_insert(REVISIONS, [{"name": "quotas", "value": 1}])
    log_retention = op.create_table(
        "log_retention",
        sa.Column("name", ascii_text(64), primary_key=True),
        sa.Column("owner", ascii_text(32)),
        sa.Column("lease_until", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("deleted_before", TIME),
        **OPTIONS,
    )
    op.bulk_insert(log_retention, [{"name": "usage_ledger"}])


def downgrade():
    op.execute(REVISIONS.delete().where(REVISIONS.c.name == "quotas"))
    for name in ("log_retention", "usage_checks", "usage_rollups", "quota_slices", "quotas", "usage_ledger"):
        op.drop_table(name)
    op.drop_index("ix_api_keys_owner_id", "api_keys")
    op.drop_column("api_keys", "owner_id")
    op.drop_column("users", "upstream_choice")
