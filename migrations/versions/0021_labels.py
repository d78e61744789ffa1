"""What operators call accounts, and whether people share their display name with them."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade():
    op.add_column("users", sa.Column("label", sa.String(100)))
    op.add_column("users", sa.Column("shares_name", sa.Boolean, nullable=False, server_default="0"))
