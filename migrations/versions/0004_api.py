"""The API's surface: client keys, API tokens, upstreams besides the pool, roles, and the log of changes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
REVISIONS = sa.table("revisions", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
WATCHED = ["client_keys", "api_tokens", "upstreams"]


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.add_column("users", sa.Column("role", ascii_text(16), nullable=False, server_default="user"))
    op.add_column("users", sa.Column("trust_level", sa.SmallInteger, nullable=False, server_default="0"))
    op.add_column("usage_ledger", sa.Column("upstream_id", sa.BigInteger))
    op.create_table(
        "client_keys",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("user_id", ID, sa.ForeignKey("users.id", name="client_keys_user"), nullable=False),
        sa.Column("key_hash", ascii_text(64), nullable=False, unique=True),
        sa.Column("key_hint", ascii_text(16), nullable=False),
        sa.Column("name", sa.String(190), nullable=False),
        sa.Column("description", sa.String(1000), nullable=False),
        sa.Column("scopes", sa.Text),
        sa.Column("models", sa.Text),
        sa.Column("upstreams", sa.Text),
        sa.Column("rpm", sa.Integer),
        sa.Column("expires_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("last_used", TIME),
        sa.Column("revoked_at", TIME),
        sa.Column("revision", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
    op.create_index("ix_client_keys_user_id", "client_keys", ["user_id"])
    op.create_index("ix_client_keys_revision", "client_keys", ["revision"])
    op.create_table(
        "api_tokens",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("user_id", ID, sa.ForeignKey("users.id", name="api_tokens_user"), nullable=False),
        sa.Column("token_hash", ascii_text(64), nullable=False, unique=True),
        sa.Column("token_hint", ascii_text(16), nullable=False),
        sa.Column("name", sa.String(190), nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_used", TIME),
        sa.Column("revoked_at", TIME),
        sa.Column("revision", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
    op.create_index("ix_api_tokens_user_id", "api_tokens", ["user_id"])
    op.create_index("ix_api_tokens_revision", "api_tokens", ["revision"])
    op.create_table(
        "upstreams",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("name", ascii_text(64), nullable=False, unique=True),
        sa.Column("base_url", sa.String(1000), nullable=False),
        sa.Column("api_key", sa.Text),
        sa.Column("api_key_hint", ascii_text(8)),
        sa.Column("connect_timeout_seconds", sa.Integer, nullable=False),
        sa.Column("timeout_seconds", sa.Integer, nullable=False),
        sa.Column("idle_timeout_seconds", sa.Integer, nullable=False),
        sa.Column("is_default", sa.Boolean(name="upstreams_is_default"), nullable=False),
        sa.Column("is_active", sa.Boolean(name="upstreams_is_active"), nullable=False),
        sa.Column("model_prefixes", sa.Text, nullable=False),
        sa.Column("prices", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "audit_log",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", ascii_text(64), nullable=False),
        sa.Column("action", ascii_text(64), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("user_id", sa.BigInteger),
        sa.Column("address", ascii_text(64)),
        sa.Column("request_id", ascii_text(32)),
        sa.Column("details", sa.Text, nullable=False),
        **OPTIONS,
    )
    op.create_index("audit_log_user", "audit_log", ["user_id", "id"])
    op.create_index("audit_log_action", "audit_log", ["action", "id"])
    op.bulk_insert(REVISIONS, [{"name": name, "value": 1} for name in WATCHED])


def downgrade():
    op.execute(REVISIONS.delete().where(REVISIONS.c.name.in_(WATCHED)))
    for name in ("audit_log", "upstreams", "api_tokens", "client_keys"):
        op.drop_table(name)
    op.drop_column("usage_ledger", "upstream_id")
    op.drop_column("users", "trust_level")
    op.drop_column("users", "role")
