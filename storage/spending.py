"""What may be spent, and what processes hold of it."""

from __future__ import annotations

import sqlalchemy as sa

from foundation.column_types import Id, UtcDateTime, ascii_text
from storage.columns import integers, table

# team_id: of the team whose manager has set it; it ends when its user leaves that.
quotas = table(
    "quotas",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("subject", ascii_text(32), nullable=False, unique=True),
    *integers("limit_nano", "soft_limit_nano"),
    sa.Column("period", ascii_text(8), nullable=False),
    sa.Column("recovery", ascii_text(8), nullable=False),
    sa.Column("is_default", sa.Boolean(name="quotas_is_default"), nullable=False),
    sa.Column("window_start", UtcDateTime, nullable=False),
    *integers("spent_nano", "reserved_nano", nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("team_id", sa.BigInteger),
)

quota_slices = table(
    "quota_slices",
    sa.Column("process_id", ascii_text(32), primary_key=True),
    sa.Column("quota_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("nano", sa.BigInteger, nullable=False),
)
