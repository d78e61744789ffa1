"""People's favourite models, and which one the pages choose for them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def upgrade():
    op.add_column("users", sa.Column("default_model", ascii_text(255)))
    user = sa.ForeignKey("users.id", name="favourite_models_user")
    op.create_table(
        "favourite_models",
        sa.Column("user_id", ID, user, primary_key=True, autoincrement=False),
        sa.Column("model", ascii_text(255), primary_key=True),
        **OPTIONS,
    )
