"""How calls find their model."""

from __future__ import annotations

import sqlalchemy as sa

from foundation.column_types import UtcDateTime, ascii_text
from storage.columns import table

# Other names for models. models: a JSON object, each model with its weight.
model_aliases = table(
    "model_aliases",
    sa.Column("name", ascii_text(64), primary_key=True),
    sa.Column("models", sa.Text, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

# What holds for calls of one model or alias. terms: a JSON object, as gateway/model_rules.py writes it.
model_rules = table(
    "model_rules",
    sa.Column("name", ascii_text(255), primary_key=True),
    sa.Column("terms", sa.Text, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)
