"""Sums of users that don't tell pool keys apart."""

from alembic import op

revision = "0011"
down_revision = "0010"

SUMS = "requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "`unknown`"
ANY_POOL_KEY = 2**62
USERS_POOL_ROWS = (
    "user_id > 0 AND pool_key_id > 0 AND pool_key_id NOT IN (SELECT id FROM api_keys WHERE source = 'connected')"
)


def upgrade():
    keys = "period, user_id, start, client_key_id"
    sums = ", ".join(f"SUM({name})" for name in SUMS)
    op.execute(
        f"INSERT INTO usage_rollups ({keys}, pool_key_id, model, {', '.join(SUMS)}) "  # noqa: S608 - our names
        f"SELECT {keys}, {ANY_POOL_KEY}, model, {sums} FROM usage_rollups "
        f"WHERE {USERS_POOL_ROWS} GROUP BY {keys}, model"
    )
    op.execute(f"DELETE FROM usage_rollups WHERE pool_key_id < {ANY_POOL_KEY} AND {USERS_POOL_ROWS}")  # noqa: S608
