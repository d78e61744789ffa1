"""What opens an account besides its key."""

from __future__ import annotations

import sqlalchemy as sa

from foundation.column_types import Id, UtcDateTime, ascii_text
from storage.columns import table

# Each good once, in the place of a password. The text exists only in the answer that made it.
recovery_codes = table(
    "recovery_codes",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", name="recovery_codes_user"), nullable=False),
    sa.Column("code_hash", ascii_text(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("used_at", UtcDateTime),
    sa.UniqueConstraint("user_id", "code_hash", name="recovery_codes_own"),
)

# By which an operator lets somebody set a new password. told_at: when its owner was told of it, at a log-in.
reset_links = table(
    "reset_links",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", name="reset_links_user"), nullable=False, index=True),
    sa.Column("token_hash", ascii_text(64), nullable=False, unique=True),
    sa.Column("created_by", ascii_text(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("used_at", UtcDateTime),
    sa.Column("told_at", UtcDateTime),
)

# The secret of an app that shows one-time codes; without effect until confirmed_at. last_step: of the last code that
# was right, in half minutes since 1970. failures: wrong ones since then.
totp_secrets = table(
    "totp_secrets",
    sa.Column(
        "user_id", Id, sa.ForeignKey("users.id", name="totp_secrets_user"), primary_key=True, autoincrement=False
    ),
    sa.Column("secret_encrypted", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("confirmed_at", UtcDateTime),
    sa.Column("last_step", sa.BigInteger),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("failed_at", UtcDateTime),
)

# Keys in devices of somebody's (WebAuthn). credential_hash: SHA-256 of credential_id, which is base64url, as public_key
# and user_handle are. user_handle: what devices know the account by.
passkeys = table(
    "passkeys",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", name="passkeys_user"), nullable=False, index=True),
    sa.Column("credential_hash", ascii_text(64), nullable=False, unique=True),
    sa.Column("credential_id", sa.Text, nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("user_handle", ascii_text(64), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("sign_count", sa.BigInteger, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("last_used", UtcDateTime),
)
