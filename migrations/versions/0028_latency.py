"""How long calls take and how they fail, in sums by hour and by day."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0028"
down_revision = "0024"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.create_table(
        "latency_rollups",
        sa.Column("period", ascii_text(1), primary_key=True),
        sa.Column("kind", ascii_text(8), primary_key=True),
        sa.Column("start", TIME, primary_key=True),
        sa.Column("subject", ascii_text(280), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("calls", "errors", "output_tokens", "output_ms")),
        sa.Column("counts", sa.Text, nullable=False),
        **OPTIONS,
    )
