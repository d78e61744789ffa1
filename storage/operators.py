"""What programs administer with."""

from __future__ import annotations

import sqlalchemy as sa

from foundation.column_types import Id, UtcDateTime, ascii_text
from storage.columns import table

# A name is never given twice: the audit log knows a token by it. `revision` is that of the change.
operator_tokens = table(
    "operator_tokens",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("name", ascii_text(48), nullable=False, unique=True),
    sa.Column("token_hash", ascii_text(64), nullable=False, unique=True),
    sa.Column("token_hint", ascii_text(16), nullable=False),
    sa.Column("scope", ascii_text(16), nullable=False),
    sa.Column("created_by", ascii_text(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("last_used", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
)
