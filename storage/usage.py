"""Sums of what was used."""

from __future__ import annotations

import sqlalchemy as sa

from foundation.column_types import UtcDateTime, ascii_text
from storage.columns import integers, table

# Sums of the ledger by hour (h) and day (d), for each user (u) and once more for each client key (k): who spent what is
# read from these few rows, where usage_rollups has one for each model that somebody has called. subject_id: the
# number of either; 0 for calls without a key, -1 for what no user is charged for.
caller_rollups = table(
    "caller_rollups",
    sa.Column("period", ascii_text(1), primary_key=True),
    sa.Column("kind", ascii_text(1), primary_key=True),
    sa.Column("start", UtcDateTime, primary_key=True),
    sa.Column("subject_id", sa.BigInteger, primary_key=True, autoincrement=False),
    *integers("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown", nullable=False),
)

# How long calls took and how they failed, by hour and day, of all and of each subject of a kind. counts: JSON, by
# bucket of time and by kind of error (billing/latency.py).
latency_rollups = table(
    "latency_rollups",
    sa.Column("period", ascii_text(1), primary_key=True),
    sa.Column("kind", ascii_text(8), primary_key=True),
    sa.Column("start", UtcDateTime, primary_key=True),
    sa.Column("subject", ascii_text(280), primary_key=True),
    *integers("calls", "errors", "output_tokens", "output_ms", nullable=False),
    sa.Column("counts", sa.Text, nullable=False),
)
