"""Operator commands for client keys: `flask --app app keys list|create|show|revoke`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from accounts.client_keys import MAX_RPM, SCOPES, ClientKeyRow
from accounts.labels import called, with_labels
from billing.quotas.budgets import budget_terms, sets_budget, with_budgets
from billing.quotas.terms import PERIODS, RECOVERIES, QuotaTerms, check_amount
from commands.printing import Commands, audit, is_for_people, services, show

client_key_commands = Commands("keys", help="Client keys: what programs call models with.")

TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])
KEY = click.IntRange(1, 2**63 - 1)
STATES = click.Choice(["active", "expired", "revoked"])
USER_HELP = "The owner's id; without it the key gets an account of its own, to which nobody can log in."
UPSTREAM_HELP = "An upstream that it may use; again for more. By default all."


@client_key_commands.command("list")
@click.option("--user", "user_id", type=KEY, help="Those of this user.")
@click.option("--state", type=STATES, help="Those in this state.")
@click.option("--page", default=1, type=click.IntRange(1), help="Which page, newest first.")
@click.option("--page-size", default=100, type=click.IntRange(1, 10_000), help="Keys on a page.")
def list_keys(user_id: int | None, state: Any, page: int, page_size: int) -> None:
    """Show client keys, revoked ones too."""
    found, total = services().client_keys.page(page, page_size, user_id, state, with_revoked=True)
    _show(found, f"Client keys: {total}")


@client_key_commands.command("create")
@click.argument("name")
@click.option("--user", "user_id", type=KEY, help=USER_HELP)
@click.option("--description", default="", help="For people.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="Again for more; by default all.")
@click.option("--model", "models", multiple=True, help="A model, or a beginning as openai/*; again for more.")
@click.option("--upstream", "upstreams", multiple=True, help=UPSTREAM_HELP)
@click.option("--address", "addresses", multiple=True, help="An address or network to use it from; again for more.")
@click.option("--rpm", type=click.IntRange(1, MAX_RPM), help="Calls a minute; by default RATE_LIMIT_KEY_RPM.")
@click.option("--response-cache", is_flag=True, help="Answer exact repeats of its calls from memory, at no cost.")
@click.option("--budget", default="none", show_default=True, help="Dollars per period, or none.")
@click.option("--period", type=click.Choice(PERIODS), help="Of the budget; by default QUOTA_PERIOD.")
@click.option("--recovery", type=click.Choice(RECOVERIES), help="Of the budget; by default QUOTA_RECOVERY.")
@click.option("--expires", "expires_at", type=TIME, help="When it ends, in UTC; by default never.")
def create_key(
    user_id: int | None,
    budget: str,
    period: str | None,
    recovery: str | None,
    expires_at: datetime | None,
    **fields: Any,
) -> None:
    """Make a client key. Its text is printed now and can never be shown again."""
    fields = {name: (list(value) or None) if isinstance(value, tuple) else value for name, value in fields.items()}
    fields["expires_at"] = expires_at.replace(tzinfo=UTC) if expires_at else None
    terms = _terms(budget, period, recovery)
    row, text = services().client_keys.create(user_id, fields, sets_budget(terms))
    audit("client_key_made", f"client-key/{row.id}", row.user_id, fields=_told(row))
    if is_for_people():
        show([{"id": row.id, "key": text}], "Made; its text is not shown again")  # alone, so that it fits
    else:
        show([_shown([row])[0] | {"key": text}], "Created")


@client_key_commands.command("show")
@click.argument("key_id", type=KEY)
def show_key(key_id: int) -> None:
    """Show one client key. Exits with 1 if there is none."""
    [row] = _shown([services().client_keys.get(key_id, with_revoked=True)])
    show([{"field": name, "value": row[name]} for name in row] if is_for_people() else [row], "Client key")


@client_key_commands.command("revoke")
@click.argument("key_id", type=KEY)
def revoke_key(key_id: int) -> None:
    """Have a client key refused everywhere within two seconds, for good. Exits with 1 if it is already."""
    row = services().client_keys.revoke(key_id)
    audit("client_key_revoked", f"client-key/{row.id}", row.user_id)
    _show([row], "Revoked")


def _terms(budget: str, period: str | None, recovery: str | None) -> QuotaTerms | None:
    limit_nano = check_amount("--budget", None if budget == "none" else budget)
    if limit_nano is None and (period or recovery):
        raise click.UsageError("--period and --recovery need a --budget")
    return None if limit_nano is None else budget_terms(services().config, limit_nano, period, recovery)


def _told(row: ClientKeyRow) -> dict[str, object]:
    """What the audit log is told of a new key."""
    return {
        name: getattr(row, name)
        for name in ("name", "scopes", "models", "upstreams", "addresses", "rpm", "response_cache", "expires_at")
    }


def _shown(rows: Sequence[ClientKeyRow]) -> list[dict[str, Any]]:
    shown = with_budgets(rows, services().quotas, services().clock.now())
    return with_labels(services().db, shown, user_label="user_id")


def _show(rows: Sequence[ClientKeyRow], title: str) -> None:
    shown = _shown(rows)
    show([_for_people(row) for row in shown] if is_for_people() else shown, title)


def _for_people(row: dict[str, Any]) -> dict[str, object]:
    """What fits on a terminal."""
    quota = row["budget"]
    is_limited = quota and quota["limit_usd"] is not None
    return {
        "id": row["id"],
        "key": row["key_hint"],
        "name": row["name"],
        "state": row["state"],
        "user": called(row["user_id"], row["user_label"]),
        "budget left": f"${quota['remaining_usd']:.2f} of ${quota['limit_usd']:.2f}" if is_limited else None,
        "expires": row["expires_at"] and f"{row['expires_at']:%Y-%m-%d %H:%M}",
        "last used": row["last_used"] and f"{row['last_used']:%Y-%m-%d %H:%M}",
    }
