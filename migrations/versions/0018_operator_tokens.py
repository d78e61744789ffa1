"""Operator tokens: what programs administer with."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0018"
down_revision = "0017"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
REVISIONS = sa.table("revisions", sa.column("name", sa.String), sa.column("value", sa.BigInteger))


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.create_table(
        "operator_tokens",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("name", ascii_text(48), nullable=False, unique=True),
        sa.Column("token_hash", ascii_text(64), nullable=False, unique=True),
        sa.Column("token_hint", ascii_text(16), nullable=False),
        sa.Column("scope", ascii_text(16), nullable=False),
        sa.Column("created_by", ascii_text(64), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("last_used", TIME),
        sa.Column("revoked_at", TIME),
        sa.Column("revision", sa.BigInteger, nullable=False, index=True),
        **OPTIONS,
    )
    op.bulk_insert(REVISIONS, [{"name": "operator_tokens", "value": 1}])
