"""Why calls and tries were refused or failed, and sums of refusals that have no row."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0016"
down_revision = "0012"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.add_column("usage_ledger", sa.Column("error_type", ascii_text(32)))
    op.add_column("usage_ledger", sa.Column("error_message", sa.String(300)))
    op.create_table(
        "refusal_sums",
        sa.Column("start", TIME, primary_key=True),
        sa.Column("caller", ascii_text(64), primary_key=True),
        sa.Column("error_type", ascii_text(32), primary_key=True),
        sa.Column("refusals", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
