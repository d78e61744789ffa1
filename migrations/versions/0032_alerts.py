"""Alerts: what is wrong, what was told of it and to whom; and what OpenRouter says is left of the credit."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0032"
down_revision = "0031"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.create_table(
        "alerts",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("kind", ascii_text(32), nullable=False),
        sa.Column("subject", ascii_text(96), nullable=False),
        sa.Column("open_as", ascii_text(136), unique=True),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        sa.Column("clear_since", TIME),
        sa.Column("told_at", TIME),
        sa.Column("ended_at", TIME),
        sa.Index("ix_alerts_ended_at", "ended_at"),
        **OPTIONS,
    )
    op.create_table(
        "alert_messages",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("alert_id", sa.BigInteger, nullable=False),
        sa.Column("says", ascii_text(8), nullable=False),
        sa.Column("channel", ascii_text(16), nullable=False),
        sa.Column("state", ascii_text(8), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("reason", sa.String(300)),
        sa.Index("ix_alert_messages_alert_id", "alert_id"),
        sa.Index("alert_messages_due", "channel", "state", "next_at"),
        **OPTIONS,
    )
    op.create_table(
        "alert_silences",
        sa.Column("kind", ascii_text(32), primary_key=True),
        sa.Column("silenced_by", ascii_text(64), nullable=False),
        sa.Column("silenced_at", TIME, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "alert_rounds",
        sa.Column("name", ascii_text(16), primary_key=True),
        sa.Column("next_at", TIME, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "openrouter_credit",
        sa.Column("name", ascii_text(16), primary_key=True),
        sa.Column("left_nano", sa.BigInteger, nullable=False),
        sa.Column("told_at", TIME, nullable=False),
        **OPTIONS,
    )
