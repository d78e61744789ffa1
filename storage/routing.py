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
