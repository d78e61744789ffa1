"""Identity: families of refresh tokens, other ways to log in, people's own OpenRouter accounts and keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_unicode_ci"}
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def ascii_text(length):
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")


def user_id(table):
    return sa.Column("user_id", ID, sa.ForeignKey("users.id", name=f"{table}_user"), nullable=False)


def upgrade():
    op.add_column("users", sa.Column("display_name", sa.String(100)))
    op.add_column("users", sa.Column("avatar_url", sa.String(500)))
    # Refresh tokens have another form from now on: whoever is logged in stays so until the access token runs out.
    op.add_column("user_sessions", sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("user_sessions", sa.Column("ends_at", TIME))
    op.add_column("user_sessions", sa.Column("ended_by", ascii_text(24)))
    op.add_column("user_sessions", sa.Column("method", ascii_text(32), nullable=False, server_default="key"))
    op.add_column("user_sessions", sa.Column("address", ascii_text(64)))
    op.add_column("user_sessions", sa.Column("user_agent", sa.String(200)))
    op.drop_column("user_sessions", "refresh_hash")
    op.create_index("ix_user_sessions_expires_at", "user_sessions", ["expires_at"])
    op.create_table(
        "identities",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        user_id("identities"),
        sa.Column("provider", ascii_text(32), nullable=False),
        sa.Column("issuer", ascii_text(255), nullable=False),
        sa.Column("subject", ascii_text(255), nullable=False),
        sa.Column("display_name", sa.String(100)),
        sa.Column("linked_at", TIME, nullable=False),
        sa.Column("last_login", TIME),
        sa.Column("trust_level", sa.SmallInteger),
        sa.Column("is_silenced", sa.Boolean, nullable=False, server_default="0"),
        sa.UniqueConstraint("provider", "issuer", "subject", name="identities_subject"),
        sa.UniqueConstraint("user_id", "provider", name="identities_provider"),
        **OPTIONS,
    )
    op.create_table(
        "oauth_states",
        sa.Column("state_hash", ascii_text(64), primary_key=True),
        sa.Column("provider", ascii_text(32), nullable=False),
        sa.Column("browser_hash", ascii_text(64), nullable=False),
        sa.Column("secrets_encrypted", sa.Text, nullable=False),
        sa.Column("user_id", sa.BigInteger),
        sa.Column("session_id", ascii_text(32)),
        sa.Column("next_path", sa.String(500)),
        sa.Column("expires_at", TIME, nullable=False),
        **OPTIONS,
    )
    op.create_index("ix_oauth_states_expires_at", "oauth_states", ["expires_at"])
    op.create_table(
        "openrouter_accounts",
        sa.Column("user_id", ID, sa.ForeignKey("users.id", name="openrouter_accounts_user"), primary_key=True),
        sa.Column("pool_key_id", sa.BigInteger, nullable=False, unique=True),
        sa.Column("method", ascii_text(8), nullable=False),
        sa.Column("label", sa.String(190)),
        sa.Column("connected_at", TIME, nullable=False),
        sa.Column("checked_at", TIME),
        sa.Column("limit_nano", sa.BigInteger),
        sa.Column("remaining_nano", sa.BigInteger),
        sa.Column("usage_nano", sa.BigInteger),
        **OPTIONS,
    )
    op.create_table(
        "personal_keys",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        user_id("personal_keys"),
        sa.Column("name", sa.String(190), nullable=False),
        sa.Column("api_key", sa.Text),
        sa.Column("api_key_hash", ascii_text(64), nullable=False),
        sa.Column("api_key_hint", ascii_text(16), nullable=False),
        sa.Column("state", ascii_text(16), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("checked_at", TIME),
        sa.Column("synced_at", TIME),
        sa.Column("next_sync_at", TIME, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("last_error", sa.String(190)),
        sa.Column("limit_nano", sa.BigInteger),
        sa.Column("remaining_nano", sa.BigInteger),
        sa.Column("usage_nano", sa.BigInteger),
        sa.UniqueConstraint("user_id", "api_key_hash", name="personal_keys_own"),
        **OPTIONS,
    )
    op.create_index("ix_personal_keys_next_sync_at", "personal_keys", ["next_sync_at"])
    op.create_table(
        "personal_key_days",
        sa.Column("personal_key_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("cost_nano", sa.BigInteger, nullable=False),
        **OPTIONS,
    )


def downgrade():
    for name in ("personal_key_days", "personal_keys", "openrouter_accounts", "oauth_states", "identities"):
        op.drop_table(name)
    op.drop_index("ix_user_sessions_expires_at", "user_sessions")
    op.add_column("user_sessions", sa.Column("refresh_hash", ascii_text(64), nullable=False, server_default=""))
    for name in ("user_agent", "address", "method", "ended_by", "ends_at", "generation"):
        op.drop_column("user_sessions", name)
    op.drop_column("users", "avatar_url")
    op.drop_column("users", "display_name")
