"""Sums by user and by client key, of all of them side by side."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0022"
down_revision = "0021"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
SUMS = "requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown"
NAMES = ", ".join(f"`{name}`" for name in SUMS)


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.create_table(
        "caller_rollups",
        sa.Column("period", ascii_text(1), primary_key=True),
        sa.Column("kind", ascii_text(1), primary_key=True),
        sa.Column("start", TIME, primary_key=True),
        sa.Column("subject_id", sa.BigInteger, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in SUMS),
        **OPTIONS,
    )
    op.execute("DELETE FROM caller_rollups")  # of a time before, when this was cut off
    sums = ", ".join(f"SUM(`{name}`)" for name in SUMS)
    nobodys = ", ".join(f"SUM(CASE WHEN user_id = 0 THEN `{name}` ELSE -`{name}` END)" for name in SUMS)
    for kind, subject in (("u", "user_id"), ("k", "client_key_id")):
        op.execute(
            f"INSERT INTO caller_rollups (period, kind, start, subject_id, {NAMES}) "  # noqa: S608 - our names
            f"SELECT period, '{kind}', start, {subject}, {sums} FROM usage_rollups WHERE user_id > 0 "
            f"GROUP BY period, start, {subject}"
        )
        op.execute(
            f"INSERT INTO caller_rollups (period, kind, start, subject_id, {NAMES}) "  # noqa: S608
            f"SELECT period, '{kind}', start, -1, {nobodys} FROM usage_rollups "
            "GROUP BY period, start HAVING SUM(CASE WHEN user_id = 0 THEN cost_nano ELSE -cost_nano END) > 0"
        )
