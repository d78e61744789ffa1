"""Invitations: one-time links by which people sign up."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0012"
down_revision = "0011"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.create_table(
        "invitations",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("token_hash", ascii_text(64), nullable=False, unique=True),
        sa.Column("token_hint", ascii_text(16), nullable=False),
        sa.Column("note", sa.String(190), nullable=False),
        sa.Column("role", ascii_text(16), nullable=False),
        sa.Column("limit_nano", sa.BigInteger),
        sa.Column("period", ascii_text(8)),
        sa.Column("is_first", sa.Boolean(name="invitations_is_first"), nullable=False),
        sa.Column("created_by", ascii_text(64), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("used_at", TIME),
        sa.Column("used_by", sa.BigInteger),
        sa.Column("revoked_at", TIME),
        **OPTIONS,
    )
