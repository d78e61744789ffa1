"""What a crash-safe rotation remembers of keys, its leader's lease, and what gateways report."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    for column in (
        sa.Column("account_id", ascii_text(64)),
        sa.Column("limit_nano", sa.BigInteger),
        sa.Column("remaining_nano", sa.BigInteger),
        sa.Column("usage_nano", sa.BigInteger),
        sa.Column("replaces_id", sa.BigInteger),
        sa.Column("renew_at", TIME),
        sa.Column("drain_until", TIME),
        sa.Column("drain_revision", sa.BigInteger),
    ):
        op.add_column("api_keys", column)
    op.execute("UPDATE api_keys SET drain_until = updated_at WHERE state = 'draining'")
    rotator = op.create_table(
        "rotator",
        sa.Column("name", ascii_text(64), primary_key=True),
        sa.Column("owner", ascii_text(64)),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("lease_until", TIME),
        sa.Column("deployment_hash", ascii_text(64)),
        sa.Column("deletions_held_until", TIME),
        **OPTIONS,
    )
    op.bulk_insert(rotator, [{"name": "rotation", "epoch": 0}])
    op.create_table(
        "gateway_processes",
        sa.Column("id", ascii_text(32), primary_key=True),
        sa.Column("beat_at", TIME, nullable=False, index=True),
        sa.Column("keys_revision", sa.BigInteger, nullable=False),
        sa.Column("report", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), nullable=False),
        **OPTIONS,
    )


def downgrade():
    op.drop_table("gateway_processes")
    op.drop_table("rotator")
    added = "account_id", "limit_nano", "remaining_nano", "usage_nano", "replaces_id", "renew_at"
    for name in (*added, "drain_until", "drain_revision"):
        op.drop_column("api_keys", name)
