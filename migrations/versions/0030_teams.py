"""Teams: who is in which, what their calls may use, and what they have spent."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0030"
down_revision = "0028"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
SUMS = "requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown"
REVISIONS = sa.table("revisions", sa.column("name", sa.String), sa.column("value", sa.BigInteger))


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.create_table(
        "teams",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("models", sa.Text),
        sa.Column("upstreams", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("deleted_at", TIME),
        **OPTIONS,
    )
    op.create_table(
        "team_members",
        sa.Column(
            "user_id", ID, sa.ForeignKey("users.id", name="team_members_user"), primary_key=True, autoincrement=False
        ),
        sa.Column("team_id", ID, sa.ForeignKey("teams.id", name="team_members_team"), nullable=False, index=True),
        sa.Column("role", ascii_text(16), nullable=False),
        sa.Column("joined_at", TIME, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "team_rollups",
        sa.Column("period", ascii_text(1), primary_key=True),
        sa.Column("team_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("start", TIME, primary_key=True),
        sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in SUMS),
        **OPTIONS,
    )
    op.add_column("client_keys", sa.Column("team_id", sa.BigInteger))
    op.add_column("invitations", sa.Column("team_id", sa.BigInteger))
    op.add_column("quotas", sa.Column("team_id", sa.BigInteger))
    op.add_column("usage_ledger", sa.Column("team_id", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("usage_ledger", sa.Column("team_quota_id", sa.BigInteger))
    op.bulk_insert(REVISIONS, [{"name": "teams", "value": 1}])
