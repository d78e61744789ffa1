"""Videos: jobs that go on at OpenRouter after the call that started them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0024"
down_revision = "0023"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.create_table(
        "video_jobs",
        sa.Column("id", ascii_text(128), primary_key=True),
        sa.Column("request_id", ascii_text(32), nullable=False),
        sa.Column("attempt", sa.SmallInteger, nullable=False),
        sa.UniqueConstraint("request_id", "attempt", name="video_jobs_call"),
        **OPTIONS,
    )
