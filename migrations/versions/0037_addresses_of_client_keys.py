"""From which addresses a client key may be used; null for any."""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade():
    op.add_column("client_keys", sa.Column("addresses", sa.Text))
