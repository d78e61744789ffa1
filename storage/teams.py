"""Teams: people who share a quota."""

from __future__ import annotations

import sqlalchemy as sa

from foundation.column_types import Id, UtcDateTime, ascii_text
from storage.columns import integers, table

# models, upstreams: JSON lists; null stands for all. A deleted team keeps its row, because the ledger counts by it.
teams = table(
    "teams",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("models", sa.Text),
    sa.Column("upstreams", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("deleted_at", UtcDateTime),
)

# Who is in a team now. The primary key says that nobody is in two.
team_members = table(
    "team_members",
    sa.Column(
        "user_id", Id, sa.ForeignKey("users.id", name="team_members_user"), primary_key=True, autoincrement=False
    ),
    sa.Column("team_id", Id, sa.ForeignKey("teams.id", name="team_members_team"), nullable=False, index=True),
    sa.Column("role", ascii_text(16), nullable=False),
    sa.Column("joined_at", UtcDateTime, nullable=False),
)

# Sums of the ledger by hour (h) and day (d) of what teams were charged for, by who has called.
team_rollups = table(
    "team_rollups",
    sa.Column("period", ascii_text(1), primary_key=True),
    sa.Column("team_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("start", UtcDateTime, primary_key=True),
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    *integers("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown", nullable=False),
)
