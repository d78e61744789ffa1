"""Operator commands for operator tokens: `flask --app app operator-tokens list|create|revoke`."""

from __future__ import annotations

from datetime import timedelta

import click

from accounts.labels import with_labels
from accounts.operator_tokens import MAX_DAYS
from accounts.roles import TokenScope
from commands.printing import Commands, audit, services, show

operator_token_commands = Commands("operator-tokens", help="What programs administer with over HTTP.")


@operator_token_commands.command("list")
@click.option("--page", default=1, type=click.IntRange(1), help="Which page, newest first.")
@click.option("--page-size", default=100, type=click.IntRange(1, 10_000), help="Tokens on a page.")
def list_tokens(page: int, page_size: int) -> None:
    """Show the tokens, revoked ones too."""
    found, total = services().operator_tokens.page(page, page_size)
    rows = [one.to_dict(services().clock.now()) for one in found]
    show(with_labels(services().db, rows, created_by_label="created_by"), f"Operator tokens: {total}")


@operator_token_commands.command("create")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice([scope.value for scope in TokenScope]),
    default=TokenScope.READ.value,
    help="What it may do.",
)
@click.option("--days", type=click.IntRange(1, MAX_DAYS), default=90, help="For so long it is good.")
def create_token(name: str, scope: str, days: int) -> None:
    """Make a token. Its text is printed now and can never be shown again."""
    made, text = services().operator_tokens.create(name, TokenScope(scope), timedelta(days=days), "cli")
    audit("operator_token_made", f"token/{made.name}", scope=scope, days=days)
    show([made.to_dict(made.created_at) | {"token": text}], "Operator token")


@operator_token_commands.command("revoke")
@click.argument("token_id", type=click.IntRange(1))
def revoke_token(token_id: int) -> None:
    """Refuse a token from now on, everywhere within two seconds."""
    found = services().operator_tokens.revoke(token_id)
    audit("operator_token_revoked", f"token/{found.name}")
    show([found.to_dict(services().clock.now())], "Operator token")
