"""Users, their sessions, the key pool, sealed secrets and revisions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.create_table(
        "users",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("username_hash", ascii_text(64), nullable=False, unique=True),
        sa.Column("key_hash", ascii_text(255), nullable=False),
        sa.Column("state", ascii_text(16), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("last_login", TIME),
        **OPTIONS,
    )
    op.create_table(
        "user_sessions",
        sa.Column("id", ascii_text(32), primary_key=True),
        sa.Column("user_id", ID, sa.ForeignKey("users.id", name="user_sessions_user"), nullable=False, index=True),
        sa.Column("refresh_hash", ascii_text(64), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("refreshed_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, index=True),
        **OPTIONS,
    )
    op.create_table(
        "api_keys",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(190), nullable=False, unique=True),
        sa.Column("state", ascii_text(16), nullable=False, index=True),
        sa.Column("source", ascii_text(16), nullable=False),
        sa.Column("api_key", sa.Text),
        sa.Column("api_key_hash", ascii_text(64), unique=True),
        sa.Column("enabled", sa.Boolean(name="api_keys_enabled"), nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("last_used", TIME),
        sa.Column("use_count", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "sealed_secrets",
        sa.Column("name", ascii_text(64), primary_key=True),
        sa.Column("value_encrypted", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        **OPTIONS,
    )
    revisions = op.create_table(
        "revisions",
        sa.Column("name", ascii_text(64), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
    op.bulk_insert(revisions, [{"name": name, "value": 1} for name in ("users", "user_sessions", "api_keys")])


def downgrade():
    for table in ("revisions", "sealed_secrets", "api_keys", "user_sessions", "users"):
        op.drop_table(table)
