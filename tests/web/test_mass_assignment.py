"""Every column of every table, sent to every route that writes: refused, or of no effect on what is not the route's.

Sent beside a valid body, and alone in `make torture`, with values that would be somebody's gain. What a route may change is listed here,
column by column; a route without an entry fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tables
from serving.door import PATHS
from tests.sandbox.conftest import Running
from tests.support.api_world import World, all_routes, declared
from tests.support.examples import examples
from tests.support.gateway import Gateway, refusal_of, wait_for
from tests.web.test_access_matrix import ROWS

COLUMNS = sorted({column.name for table in tables.metadata.tables.values() for column in table.columns})
MORE = ["is_admin", "admin", "permissions", "quota", "limit", "owner", "__proto__", "constructor"]
HOSTILE = [1, True, "admin", 10**15, "active", None, -1, ["*"], {"id": 1}, "2999-01-01T00:00:00Z"]
# What goes on by itself, whatever is asked for.
BACKGROUND = {f"gateway_processes.{name}" for name in ("id", "beat_at", "keys_revision", "report")}
BACKGROUND |= {f"refusal_sums.{name}" for name in ("start", "caller", "error_type", "refusals")}
BACKGROUND |= {f"quota_slices.{name}" for name in ("process_id", "quota_id", "nano")}
BACKGROUND |= {f"api_keys.{name}" for name in ("last_used", "use_count", "limit_nano", "remaining_nano", "usage_nano")}
BACKGROUND |= {f"log_retention.{name}" for name in ("name", "owner", "lease_until", "finished_at", "deleted_before")}
BACKGROUND |= {"api_keys.updated_at", "api_keys.account_id", "client_keys.last_used", "api_tokens.last_used"}
ALL_OF = {name: {f"{name}.{column.name}" for column in table.columns} for name, table in tables.metadata.tables.items()}
BACKGROUND |= ALL_OF["alerts"] | ALL_OF["alert_rounds"]
BACKGROUND |= ALL_OF["audit_log"]  # those of refused log-ins come some seconds later
BACKGROUND |= ALL_OF["usage_ledger"]  # and calls, when their journal is drained
BACKGROUND |= {column for name in ALL_OF if name.endswith("_rollups") for column in ALL_OF[name]}
OF_SESSIONS = ALL_OF["user_sessions"] | {"users.last_login", "users.updated_at"}
OF_LOG_INS = OF_SESSIONS | ALL_OF["reset_links"]  # a log-in tells of them
OF_KEYS = ALL_OF["client_keys"] | ALL_OF["quotas"] | {"revisions.value"}
OF_TOKENS = ALL_OF["api_tokens"] | {"revisions.value"}
OF_WATCHED_KEYS = ALL_OF["personal_keys"] | ALL_OF["personal_key_days"]
OF_QUOTAS = ALL_OF["quotas"] | {"revisions.value"}
OF_UPSTREAMS = ALL_OF["upstreams"] | {"revisions.value"}
OF_ACCOUNTS = ALL_OF["openrouter_accounts"] | ALL_OF["api_keys"] | {"revisions.value"}
OF_LEAVING = ALL_OF["users"] | ALL_OF["user_sessions"] | ALL_OF["client_keys"] | ALL_OF["api_tokens"]
OF_LEAVING |= {"revisions.value"}
OF_TEAMS = ALL_OF["teams"] | ALL_OF["team_members"] | {"revisions.value"}
OF_POOL_KEYS = {"api_keys.enabled", "api_keys.updated_at", "revisions.value"}
# What a route may change. In rows that are new every column is, so a table may stand here as a whole; that no other
# person's rows change is for the access matrix.
CHANGES: dict[str, set[str]] = {
    "POST /register": ALL_OF["users"],
    "POST /login": OF_LOG_INS,
    "POST /api/auth/register": ALL_OF["users"],
    "POST /api/auth/login": OF_LOG_INS,
    "POST /api/auth/refresh": OF_SESSIONS,
    "POST /api/auth/logout": {"user_sessions.ended_at", "revisions.value"} | OF_SESSIONS,
    "POST /api/auth/logout-all": {"revisions.value"} | OF_SESSIONS,
    "POST /api/auth/end-everything": ALL_OF["client_keys"] | ALL_OF["api_tokens"] | {"revisions.value"} | OF_SESSIONS,
    "POST /api/auth/change-key": {"users.key_hash", "revisions.value"} | OF_SESSIONS,
    "POST /api/auth/change-password": {"users.key_hash", "revisions.value"} | OF_SESSIONS,
    "POST /api/auth/step-up": {"user_sessions.proved_at"},
    "POST /api/auth/step-up-password": {"user_sessions.proved_at"},
    "POST /api/auth/second-factor": ALL_OF["totp_secrets"],
    "POST /api/auth/second-factor/confirm": set(),  # none was begun
    "DELETE /api/auth/second-factor": ALL_OF["totp_secrets"],
    "DELETE /admin/users/{user_id}/second-factor": ALL_OF["totp_secrets"] | ALL_OF["passkeys"],
    "POST /api/auth/passkeys/challenge": ALL_OF["oauth_states"],
    "POST /api/auth/passkeys": set(),  # what is sent is of no challenge
    "DELETE /api/auth/passkeys/{passkey_id}": ALL_OF["passkeys"],
    "POST /api/auth/passkeys/log-in/challenge": ALL_OF["oauth_states"],
    "POST /api/auth/passkeys/log-in": set(),
    "POST /api/auth/recovery-codes": ALL_OF["recovery_codes"],
    "POST /api/auth/recover": {"users.key_hash", "recovery_codes.used_at", "revisions.value"} | OF_SESSIONS,
    "POST /api/auth/recover-password": {"users.key_hash", "recovery_codes.used_at", "revisions.value"} | OF_SESSIONS,
    "POST /api/auth/reset": {"users.key_hash", "reset_links.used_at", "revisions.value"} | OF_SESSIONS,
    "POST /api/auth/reset-password": {"users.key_hash", "reset_links.used_at", "revisions.value"} | OF_SESSIONS,
    "POST /api/auth/set-key": set(),  # the owner has one
    "POST /api/auth/set-password": set(),
    "POST /admin/users/{user_id}/reset-link": ALL_OF["reset_links"],
    "DELETE /api/auth/me": OF_LEAVING,
    "DELETE /admin/users/{user_id}": OF_LEAVING,
    "PUT /api/auth/profile": {"users.display_name", "users.shares_name", "users.updated_at"},
    "DELETE /api/auth/sessions/{session_id}": {"revisions.value"} | OF_SESSIONS,
    "POST /api/auth/github/callback": set(),
    "POST /api/auth/sso/token": set(),  # what is sent is no code
    "POST /api/auth/sso/{provider}/link": ALL_OF["oauth_states"],
    "DELETE /api/auth/sso/{provider}": ALL_OF["identities"],
    "PUT /api/models/favourites/{name}": ALL_OF["favourite_models"],
    "DELETE /api/models/favourites/{name}": ALL_OF["favourite_models"],
    "PUT /api/models/default": {"users.default_model"},
    "PUT /api/upstream": {"users.upstream_choice", "users.updated_at", "revisions.value"},
    "POST /api/v1/openrouter/auth/validate-key": OF_ACCOUNTS,
    "POST /api/v1/openrouter/oauth/initiate": ALL_OF["oauth_states"],
    "POST /api/plugin-api/oauth/authorize": ALL_OF["oauth_states"],
    "POST /api/v1/openrouter/oauth/callback": OF_ACCOUNTS | ALL_OF["oauth_states"],
    "POST /api/v1/openrouter/logout": OF_ACCOUNTS,
    "POST /api/api-keys": OF_KEYS,
    "PATCH /api/api-keys/{key_id}": OF_KEYS,
    "DELETE /api/api-keys/{key_id}": OF_KEYS,
    "POST /api/tokens": OF_TOKENS,
    "DELETE /api/tokens/{token_id}": OF_TOKENS,
    "POST /api/keys": OF_WATCHED_KEYS,
    "PUT /api/keys/{key_id}": {"personal_keys.name", "personal_keys.updated_at"},
    "DELETE /api/keys/{key_id}": OF_WATCHED_KEYS,
    "POST /api/keys/{key_id}/sync": {f"personal_keys.{name}" for name in ("asked_at", "checked_at", "synced_at")}
    | {"personal_keys.next_sync_at"},
    "POST /admin/pool/enable": OF_POOL_KEYS,
    "POST /admin/pool/disable": OF_POOL_KEYS,
    "POST /admin/pool/rotate": OF_POOL_KEYS | {"api_keys.renew_at"},
    "PUT /admin/quotas/{kind}/{number}": OF_QUOTAS,
    "DELETE /admin/quotas/{kind}/{number}": OF_QUOTAS,
    "POST /admin/keys": OF_KEYS | ALL_OF["users"],  # an account for a key that has no user
    "PATCH /admin/keys/{key_id}": OF_KEYS,
    "DELETE /admin/keys/{key_id}": OF_KEYS,
    "POST /admin/upstreams": OF_UPSTREAMS,
    "PUT /admin/upstreams/{upstream}": OF_UPSTREAMS,
    "DELETE /admin/upstreams/{upstream}": OF_UPSTREAMS,
    "POST /admin/upstreams/{upstream}/check": set(),
    "POST /admin/alerts/test": set(),
    "PUT /admin/alerts/kinds/{kind}": ALL_OF["alert_silences"],
    "PUT /admin/aliases/{alias}": ALL_OF["model_aliases"] | {"revisions.value"},
    "DELETE /admin/aliases/{alias}": ALL_OF["model_aliases"] | {"revisions.value"},
    "PUT /admin/model-rules/{model}": ALL_OF["model_rules"] | {"revisions.value"},
    "DELETE /admin/model-rules/{model}": ALL_OF["model_rules"] | {"revisions.value"},
    "POST /admin/teams": ALL_OF["teams"] | OF_QUOTAS,
    "PATCH /admin/teams/{team_id}": {"teams.models", "teams.updated_at", "revisions.value"},
    "DELETE /admin/teams/{team_id}": OF_TEAMS,
    "POST /admin/teams/{team_id}/members": OF_TEAMS,
    "PATCH /admin/teams/{team_id}/members/{user_id}": {"team_members.role", "revisions.value"},
    "DELETE /admin/teams/{team_id}/members/{user_id}": OF_TEAMS,
    "POST /admin/users/find": set(),
    "POST /admin/tokens": ALL_OF["operator_tokens"] | {"revisions.value"},
    "DELETE /admin/tokens/{token_id}": {f"operator_tokens.{name}" for name in ("revoked_at", "revision")}
    | {"revisions.value"},
    "POST /admin/invitations": ALL_OF["invitations"],
    "DELETE /admin/invitations/{invitation_id}": {"invitations.revoked_at"},
    "PATCH /admin/users/{user_id}": {
        f"users.{name}" for name in ("state", "role", "trust_level", "label", "updated_at")
    }
    | {"user_sessions.ended_at", "user_sessions.ended_by", "revisions.value"},
    "POST /admin/users/{user_id}/end-everything": {"revisions.value"}
    | {f"{table}.{name}" for table in ("client_keys", "api_tokens") for name in ("revoked_at", "revision")}
    | {"user_sessions.ended_at", "user_sessions.ended_by"},
    "POST /admin/users/{user_id}/end-sessions": {"user_sessions.ended_at", "user_sessions.ended_by", "revisions.value"},
}
WRITES = [route for route in all_routes() if not route.startswith("GET ") and route.partition(" ")[2] not in PATHS]


OPERATIONS = declared()


def test_every_route_that_writes_has_an_entry_and_every_entry_a_route() -> None:
    assert set(CHANGES) == set(WRITES)


@pytest.fixture(scope="module")
def world(modules_database_url: str, start: Callable[..., Gateway], stand_in: Running) -> Iterator[World]:
    made = World(start, stand_in, modules_database_url)
    yield made
    made.close()


def changed(before: dict[str, dict[str, list[Any]]], after: dict[str, dict[str, list[Any]]]) -> set[str]:
    """The columns, as `table.column`, that differ; a table with rows more or less differs in all of them."""
    return {
        f"{table}.{column}"
        for table, columns in after.items()
        for column, values in columns.items()
        if values != before[table][column]
    }


@pytest.mark.hypothesis
@pytest.mark.parametrize("route", WRITES)
def test_no_column_can_be_written_that_is_not_the_routes(world: World, route: str) -> None:
    method, _, template = route.partition(" ")
    kind = "operator" if "/admin/" in template else "owner"
    model = OPERATIONS[route].body
    fields = set(model.model_fields) if model else None
    asked = ROWS[route][1](world, kind)
    path = template.format(**asked.parts or {})
    before = world.dump()
    values = itertools.cycle(HOSTILE)
    # In the suite each route gets every fifth name, another fifth than its neighbours: all names, and all routes.
    tried = [*COLUMNS, *MORE][WRITES.index(route) % examples(5, 1) :: examples(5, 1)]
    for name in tried if fields is not None else ():
        value = next(values)
        if name in fields:
            continue
        alone, beside = {name: value}, {**asked.body, name: value}
        for body in examples([beside], [alone, beside]):
            refused = world.ask(kind, method, path, body, asked.bearer)
            assert refused.status_code == 400, (body, refused.text)
            assert repr(name) in refusal_of(refused) or body.keys() == {name}
    assert changed(before, world.dump()) - BACKGROUND == set()

    # All at once, to a route that takes no body; or the route's own fields, which change what is listed and no more.
    body = dict.fromkeys(COLUMNS, 1) if fields is None else asked.body
    answer = world.ask(kind, method, path, body, asked.bearer)
    assert answer.status_code < 500, answer.text
    assert changed(before, world.dump()) - BACKGROUND <= CHANGES[route]
    while world.cleanups:
        world.cleanups.pop()()


def test_what_a_call_is_billed_by_can_not_be_said_in_its_body(world: World) -> None:
    """Unknown fields of a model call go up as they are; here they must count for nothing."""
    is_format = {"model", "prompt", "input", "messages", "stream", "n", "models"}
    hostile = {name: 1 for name in COLUMNS if name not in is_format} | {"user_id": world.other.id, "cost_nano": 0}
    before = world.dump()
    answer = world.gateway.chat(world.owner.token, max_tokens=5, **hostile)
    assert answer.status_code == 200, answer.text

    def settled() -> list[Any]:
        with world.db.reading() as tx:
            ledger = tables.usage_ledger
            newest = ledger.select().where(ledger.c.state == "settled").order_by(ledger.c.request_id.desc())
            rows = tx.execute(newest.limit(1)).all()
        return [row for row in rows if row.request_id == answer.headers["X-Request-Id"]]

    [found] = wait_for(settled)
    assert (found.user_id, found.client_key_id, found.attempt) == (world.owner.id, None, 1)
    assert found.cost_nano > 0
    allowed = ALL_OF["usage_ledger"] | ALL_OF["usage_rollups"] | ALL_OF["quotas"] | {"revisions.value"}
    assert changed(before, world.dump()) - BACKGROUND <= allowed
