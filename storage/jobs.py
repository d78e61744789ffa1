"""What goes on at OpenRouter after the call that started it."""

from __future__ import annotations

import sqlalchemy as sa

from foundation.column_types import ascii_text
from storage.columns import table

# Videos that are made or were: the job's id at OpenRouter, and the row of the ledger that says whose it is.
video_jobs = table(
    "video_jobs",
    sa.Column("id", ascii_text(128), primary_key=True),
    sa.Column("request_id", ascii_text(32), nullable=False),
    sa.Column("attempt", sa.SmallInteger, nullable=False),
    sa.UniqueConstraint("request_id", "attempt", name="video_jobs_call"),
)
