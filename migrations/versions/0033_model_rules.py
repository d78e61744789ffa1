"""What holds for calls of one model: fallbacks, a time-out, a choice of upstreams."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0033"
down_revision = "0032"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
REVISIONS = sa.table("revisions", sa.column("name", sa.String), sa.column("value", sa.BigInteger))


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.create_table(
        "model_rules",
        sa.Column("name", ascii_text(255), primary_key=True),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        **OPTIONS,
    )
    op.bulk_insert(REVISIONS, [{"name": "model_rules", "value": 1}])
