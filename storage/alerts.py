"""What operators are told of by itself."""

from __future__ import annotations

import sqlalchemy as sa

from foundation.column_types import Id, UtcDateTime, ascii_text
from storage.columns import table

# What is wrong or was. subject: what of its kind it is about. open_as: kind and subject until it is over, so that it
# is open once, whoever finds it. clear_since: since when it is not so any more; told_at: when its begin was told.
alerts = table(
    "alerts",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("kind", ascii_text(32), nullable=False),
    sa.Column("subject", ascii_text(96), nullable=False),
    sa.Column("open_as", ascii_text(136), unique=True),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("began_at", UtcDateTime, nullable=False),
    sa.Column("clear_since", UtcDateTime),
    sa.Column("told_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime, index=True),
)

# What goes out of it, to each channel: written with the change that it tells of. next_at: when it is tried next.
alert_messages = table(
    "alert_messages",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("alert_id", sa.BigInteger, nullable=False, index=True),
    sa.Column("says", ascii_text(8), nullable=False),
    sa.Column("channel", ascii_text(16), nullable=False),
    sa.Column("state", ascii_text(8), nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("next_at", UtcDateTime, nullable=False),
    sa.Column("reason", sa.String(300)),
    sa.Index("alert_messages_due", "channel", "state", "next_at"),
)

# Kinds whose beginnings operators don't want to be told of.
alert_silences = table(
    "alert_silences",
    sa.Column("kind", ascii_text(32), primary_key=True),
    sa.Column("silenced_by", ascii_text(64), nullable=False),
    sa.Column("silenced_at", UtcDateTime, nullable=False),
)

# When somebody is to look again, so that of all processes one does.
alert_rounds = table(
    "alert_rounds",
    sa.Column("name", ascii_text(16), primary_key=True),
    sa.Column("next_at", UtcDateTime, nullable=False),
)

# What the account whose management key the rotation has is worth, as OpenRouter last told.
openrouter_credit = table(
    "openrouter_credit",
    sa.Column("name", ascii_text(16), primary_key=True),
    sa.Column("left_nano", sa.BigInteger, nullable=False),
    sa.Column("told_at", UtcDateTime, nullable=False),
)
