"""What a call's tokens and cost consist of."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0006"


def upgrade():
    for name in ("cached_tokens", "reasoning_tokens", "image_tokens", "web_searches", "byok_nano"):
        op.add_column("usage_ledger", sa.Column(name, sa.BigInteger))
