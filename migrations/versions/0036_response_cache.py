"""Whether exact repeats of a client key's calls are answered from memory."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0033"


def upgrade():
    op.add_column("client_keys", sa.Column("response_cache", sa.Boolean, nullable=False, server_default="0"))
