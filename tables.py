"""The tables: what each column is called, and which type it has on either database.

Written beside the migrations, which a test compares with them to the last option. Times are aware and UTC on both
sides; money is integer nano-dollars. Tables that came later stand in storage/, by domain, and are found here too.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from foundation.column_types import Id, UtcDateTime, ascii_text
from storage import alerts as alert_tables
from storage import columns, jobs, operators, routing, spending, usage, ways_in
from storage import teams as of_teams

metadata, _table, _integers = columns.metadata, columns.table, columns.integers
operator_tokens = operators.operator_tokens
model_aliases, model_rules = routing.model_aliases, routing.model_rules
caller_rollups, latency_rollups = usage.caller_rollups, usage.latency_rollups
recovery_codes, reset_links = ways_in.recovery_codes, ways_in.reset_links
totp_secrets, passkeys = ways_in.totp_secrets, ways_in.passkeys
video_jobs = jobs.video_jobs
quotas, quota_slices = spending.quotas, spending.quota_slices
teams, team_members, team_rollups = of_teams.teams, of_teams.team_members, of_teams.team_rollups
alerts, alert_messages = alert_tables.alerts, alert_tables.alert_messages
alert_silences, alert_rounds = alert_tables.alert_silences, alert_tables.alert_rounds
openrouter_credit = alert_tables.openrouter_credit

users = _table(
    "users",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("username_hash", ascii_text(64), nullable=False, unique=True),
    sa.Column("key_hash", ascii_text(255), nullable=False),
    sa.Column("state", ascii_text(16), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("last_login", UtcDateTime),
    sa.Column("upstream_choice", ascii_text(16)),
    sa.Column("role", ascii_text(16), nullable=False, server_default="user"),
    sa.Column("trust_level", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("display_name", sa.String(100)),
    sa.Column("avatar_url", sa.String(500)),
    sa.Column("default_model", ascii_text(255)),
    sa.Column("label", sa.String(100)),
    sa.Column("shares_name", sa.Boolean, nullable=False, server_default="0"),
)

favourite_models = _table(
    "favourite_models",
    sa.Column(
        "user_id",
        Id,
        sa.ForeignKey("users.id", name="favourite_models_user"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("model", ascii_text(255), primary_key=True),
)

user_sessions = _table(
    "user_sessions",
    sa.Column("id", ascii_text(32), primary_key=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", name="user_sessions_user"), nullable=False, index=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("refreshed_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
    sa.Column("ended_at", UtcDateTime, index=True),
    sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("ends_at", UtcDateTime),
    sa.Column("ended_by", ascii_text(24)),
    sa.Column("method", ascii_text(32), nullable=False, server_default="key"),
    sa.Column("address", ascii_text(64)),
    sa.Column("user_agent", sa.String(200)),
    sa.Column("proved_at", UtcDateTime),
)

# Who somebody is elsewhere: by the provider's own id, never by name or e-mail. trust_level, is_silenced: what the
# provider last said, of the account that it made; where the account's level differs, an operator has set it.
identities = _table(
    "identities",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", name="identities_user"), nullable=False),
    sa.Column("provider", ascii_text(32), nullable=False),
    sa.Column("issuer", ascii_text(255), nullable=False),
    sa.Column("subject", ascii_text(255), nullable=False),
    sa.Column("display_name", sa.String(100)),
    sa.Column("linked_at", UtcDateTime, nullable=False),
    sa.Column("last_login", UtcDateTime),
    sa.Column("trust_level", sa.SmallInteger),
    sa.Column("is_silenced", sa.Boolean, nullable=False, server_default="0"),
    sa.UniqueConstraint("provider", "issuer", "subject", name="identities_subject"),
    sa.UniqueConstraint("user_id", "provider", name="identities_provider"),
)

# Links by which people sign up. limit_nano, period: the quota, null for the default. is_first: for the first operator.
invitations = _table(
    "invitations",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("token_hash", ascii_text(64), nullable=False, unique=True),
    sa.Column("token_hint", ascii_text(16), nullable=False),
    sa.Column("note", sa.String(190), nullable=False),
    sa.Column("role", ascii_text(16), nullable=False),
    sa.Column("limit_nano", sa.BigInteger),
    sa.Column("period", ascii_text(8)),
    sa.Column("is_first", sa.Boolean(name="invitations_is_first"), nullable=False),
    sa.Column("created_by", ascii_text(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("used_at", UtcDateTime),
    sa.Column("used_by", sa.BigInteger),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("team_id", sa.BigInteger),
)

# A log-in that is under way at a provider: consumed by its deletion. user_id, session_id: of who links or connects.
oauth_states = _table(
    "oauth_states",
    sa.Column("state_hash", ascii_text(64), primary_key=True),
    sa.Column("provider", ascii_text(32), nullable=False),
    sa.Column("browser_hash", ascii_text(64), nullable=False),
    sa.Column("secrets_encrypted", sa.Text, nullable=False),
    sa.Column("user_id", sa.BigInteger),
    sa.Column("session_id", ascii_text(32)),
    sa.Column("next_path", sa.String(500)),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
)

pool_keys = _table(
    "api_keys",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(190), nullable=False, unique=True),
    sa.Column("state", ascii_text(16), nullable=False, index=True),
    sa.Column("source", ascii_text(16), nullable=False),
    sa.Column("api_key", sa.Text),
    sa.Column("api_key_hash", ascii_text(64), unique=True),
    sa.Column("enabled", sa.Boolean(name="api_keys_enabled"), nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("last_used", UtcDateTime),
    sa.Column("use_count", sa.BigInteger, nullable=False),
    sa.Column("account_id", ascii_text(64)),
    sa.Column("limit_nano", sa.BigInteger),
    sa.Column("remaining_nano", sa.BigInteger),
    sa.Column("usage_nano", sa.BigInteger),
    sa.Column("replaces_id", sa.BigInteger),
    sa.Column("renew_at", UtcDateTime),
    sa.Column("drain_until", UtcDateTime),
    sa.Column("drain_revision", sa.BigInteger),
    sa.Column("owner_id", sa.BigInteger, index=True),
)

# A user's own account at OpenRouter, which pays for that user's calls: its key is a row of api_keys.
openrouter_accounts = _table(
    "openrouter_accounts",
    sa.Column("user_id", Id, sa.ForeignKey("users.id", name="openrouter_accounts_user"), primary_key=True),
    sa.Column("pool_key_id", sa.BigInteger, nullable=False, unique=True),
    sa.Column("method", ascii_text(8), nullable=False),
    sa.Column("label", sa.String(190)),
    sa.Column("connected_at", UtcDateTime, nullable=False),
    sa.Column("checked_at", UtcDateTime),
    sa.Column("limit_nano", sa.BigInteger),
    sa.Column("remaining_nano", sa.BigInteger),
    sa.Column("usage_nano", sa.BigInteger),
)

# OpenRouter keys that people use elsewhere and only watch here. asked_at: the latest question about one, under way or
# answered; checked_at: the latest answer that says whether OpenRouter accepts it; synced_at: that tells its usage.
watched_keys = _table(
    "personal_keys",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", name="personal_keys_user"), nullable=False),
    sa.Column("name", sa.String(190), nullable=False),
    sa.Column("api_key", sa.Text),
    sa.Column("api_key_hash", ascii_text(64), nullable=False),
    sa.Column("api_key_hint", ascii_text(16), nullable=False),
    sa.Column("state", ascii_text(16), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("asked_at", UtcDateTime, nullable=False),
    sa.Column("checked_at", UtcDateTime),
    sa.Column("synced_at", UtcDateTime),
    sa.Column("next_sync_at", UtcDateTime, nullable=False, index=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_error", sa.String(190)),
    sa.Column("limit_nano", sa.BigInteger),
    sa.Column("remaining_nano", sa.BigInteger),
    sa.Column("usage_nano", sa.BigInteger),
    sa.UniqueConstraint("user_id", "api_key_hash", name="personal_keys_own"),
)

# What a watched key has cost on one day (UTC), anywhere.
watched_key_days = _table(
    "personal_key_days",
    sa.Column("personal_key_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("cost_nano", sa.BigInteger, nullable=False),
)

# What clients authenticate with instead of a log-in. Lists are JSON; null stands for all. `revision` is that of the
# change: processes read only what changed since. team_id: of the team that it is a key of.
client_keys = _table(
    "client_keys",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", name="client_keys_user"), nullable=False, index=True),
    sa.Column("key_hash", ascii_text(64), nullable=False, unique=True),
    sa.Column("key_hint", ascii_text(16), nullable=False),
    sa.Column("name", sa.String(190), nullable=False),
    sa.Column("description", sa.String(1000), nullable=False),
    sa.Column("scopes", sa.Text),
    sa.Column("models", sa.Text),
    sa.Column("upstreams", sa.Text),
    sa.Column("rpm", sa.Integer),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("last_used", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
    sa.Column("team_id", sa.BigInteger),
    sa.Column("response_cache", sa.Boolean, nullable=False, server_default="0"),
    sa.Column("addresses", sa.Text),
)

api_tokens = _table(
    "api_tokens",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", name="api_tokens_user"), nullable=False, index=True),
    sa.Column("token_hash", ascii_text(64), nullable=False, unique=True),
    sa.Column("token_hint", ascii_text(16), nullable=False),
    sa.Column("name", sa.String(190), nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("last_used", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
)

# OpenAI-compatible services besides the pool of OpenRouter keys. model_prefixes and prices are JSON objects.
upstreams = _table(
    "upstreams",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("name", ascii_text(64), nullable=False, unique=True),
    sa.Column("base_url", sa.String(1000), nullable=False),
    sa.Column("api_key", sa.Text),
    sa.Column("api_key_hint", ascii_text(8)),
    sa.Column("connect_timeout_seconds", sa.Integer, nullable=False),
    sa.Column("timeout_seconds", sa.Integer, nullable=False),
    sa.Column("idle_timeout_seconds", sa.Integer, nullable=False),
    sa.Column("is_default", sa.Boolean(name="upstreams_is_default"), nullable=False),
    sa.Column("is_active", sa.Boolean(name="upstreams_is_active"), nullable=False),
    sa.Column("model_prefixes", sa.Text, nullable=False),
    sa.Column("prices", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

# Who changed what. user_id: whom it concerns. Details are a JSON object without secrets.
audit_log = _table(
    "audit_log",
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", ascii_text(64), nullable=False),
    sa.Column("action", ascii_text(64), nullable=False),
    sa.Column("subject", sa.String(255), nullable=False),
    sa.Column("user_id", sa.BigInteger),
    sa.Column("address", ascii_text(64)),
    sa.Column("request_id", ascii_text(32)),
    sa.Column("details", sa.Text, nullable=False),
    sa.Index("audit_log_user", "user_id", "id"),
    sa.Index("audit_log_action", "action", "id"),
)

rotator = _table(
    "rotator",
    sa.Column("name", ascii_text(64), primary_key=True),
    sa.Column("owner", ascii_text(64)),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("deployment_hash", ascii_text(64)),
    sa.Column("deletions_held_until", UtcDateTime),
)

gateway_processes = _table(
    "gateway_processes",
    sa.Column("id", ascii_text(32), primary_key=True),
    sa.Column("beat_at", UtcDateTime, nullable=False, index=True),
    sa.Column("keys_revision", sa.BigInteger, nullable=False),
    sa.Column("report", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), nullable=False),
)

sealed_secrets = _table(
    "sealed_secrets",
    sa.Column("name", ascii_text(64), primary_key=True),
    sa.Column("value_encrypted", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

revisions = _table(
    "revisions",
    sa.Column("name", ascii_text(64), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# One row for each call upstream; attempt 0 is a request that never got there. Ids sort by time. No foreign keys: the
# rows outlive users and keys, and are inserted by the thousand.
usage_ledger = _table(
    "usage_ledger",
    sa.Column("request_id", ascii_text(32), primary_key=True),
    sa.Column("attempt", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("process_id", ascii_text(32), nullable=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    *_integers("client_key_id", "pool_key_id"),
    sa.Column("model", ascii_text(255), nullable=False),
    sa.Column("is_stream", sa.Boolean(name="usage_ledger_is_stream"), nullable=False),
    sa.Column("state", ascii_text(12), nullable=False),
    sa.Column("source", ascii_text(12)),
    *_integers("user_quota_id", "key_quota_id"),
    *_integers("reserved_nano", "estimate_nano", nullable=False),
    sa.Column("cost_nano", sa.BigInteger),
    sa.Column("generation_id", ascii_text(64), unique=True),
    *_integers("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "image_tokens"),
    *_integers("web_searches", "byok_nano"),
    sa.Column("is_last", sa.Boolean(name="usage_ledger_is_last"), nullable=False),
    sa.Column("http_status", sa.SmallInteger),
    sa.Column("outcome", ascii_text(16)),
    sa.Column("error_type", ascii_text(32)),
    sa.Column("error_message", sa.String(300)),
    sa.Column("first_byte_ms", sa.Integer),
    sa.Column("total_ms", sa.Integer),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("settled_at", UtcDateTime),
    sa.Column("next_check_at", UtcDateTime, index=True),
    sa.Column("checks", sa.SmallInteger, nullable=False),
    sa.Column("upstream_id", sa.BigInteger),
    sa.Column("asked_model", ascii_text(64)),
    sa.Column("team_id", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("team_quota_id", sa.BigInteger),
    sa.Index("usage_ledger_user", "user_id", "request_id"),
    sa.Index("usage_ledger_model", "model", "request_id"),
    sa.Index("usage_ledger_pool_key", "pool_key_id", "request_id"),
)

# Sums of the ledger by hour (h) and day (d). Each is kept twice: by user and client key, and for everybody, where
# user_id and client_key_id are 0; so neither question has to add up the rows of all users. pool_key_id is below 0 for
# other upstreams: their number, negative.
usage_rollups = _table(
    "usage_rollups",
    sa.Column("period", ascii_text(1), primary_key=True),
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("start", UtcDateTime, primary_key=True),
    sa.Column("client_key_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("pool_key_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model", ascii_text(255), primary_key=True),
    *_integers("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown", nullable=False),
)

# Refusals of model calls that have no row in the ledger, by hour: of strangers (`address/1.2.3.4`), and of callers who
# are refused too often for a row each (`user/7`).
refusal_sums = _table(
    "refusal_sums",
    sa.Column("start", UtcDateTime, primary_key=True),
    sa.Column("caller", ascii_text(64), primary_key=True),
    sa.Column("error_type", ascii_text(32), primary_key=True),
    sa.Column("refusals", sa.BigInteger, nullable=False),
)

usage_checks = _table(
    "usage_checks",
    sa.Column("day", UtcDateTime, primary_key=True),
    sa.Column("pool_key_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("our_nano", sa.BigInteger, nullable=False),
    sa.Column("activity_nano", sa.BigInteger),
    sa.Column("our_total_nano", sa.BigInteger, nullable=False),
    sa.Column("usage_nano", sa.BigInteger),
    sa.Column("checked_at", UtcDateTime, nullable=False),
)

# Whose turn it is to delete old rows of the ledger, and how far that has come.
log_retention = _table(
    "log_retention",
    sa.Column("name", ascii_text(64), primary_key=True),
    sa.Column("owner", ascii_text(32)),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("deleted_before", UtcDateTime),
)
