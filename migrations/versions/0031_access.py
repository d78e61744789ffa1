"""Access: when the owner of a session has last proved who they are, beside its begin."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0031"
down_revision = "0030"

TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def upgrade():
    op.add_column("user_sessions", sa.Column("proved_at", TIME))
