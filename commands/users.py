"""Commands for accounts, `flask --app app users list|show|find|set|invite|reset-link|delete`: without names."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import click

from accounts.invitations import InvitationTerms
from accounts.labels import check_printable
from accounts.users import MAX_TRUST_LEVEL, User, UserRole, UserState
from auth import check_username
from billing.quotas.terms import PERIODS, check_amount
from commands.printing import Commands, audit, is_for_people, services, show
from foundation.errors import NotFound

user_commands = Commands("users", help="Accounts: who may call, and who may administer.")

STATE = click.Choice([state.value for state in UserState])
ROLE = click.Choice([role.value for role in UserRole])
GIVEN_ROLE = click.Choice([role.value for role in UserRole if role is not UserRole.SERVICE])
WHAT_ROLES_MAY = "auditor: may read all below /admin; admin: may change it too."
TRUST_LEVEL = click.IntRange(0, MAX_TRUST_LEVEL)


def _label(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    try:
        return check_printable(text) if text else text
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@user_commands.command("list")
@click.option("--state", type=STATE, help="In this state alone.")
@click.option("--role", type=ROLE, help="With this role alone.")
@click.option("--trust-level", type=TRUST_LEVEL, help="With this trust level alone.")
@click.option("--page", default=1, type=click.IntRange(1), help="Which page, newest first.")
@click.option("--page-size", default=100, type=click.IntRange(1, 10_000), help="Accounts on a page.")
def list_users(page: int, page_size: int, **filters: Any) -> None:
    """Show the accounts. Service accounts are those of client keys without a person."""
    wanted = {name: value for name, value in filters.items() if value is not None}
    found, total = services().users.page(page, page_size, wanted)
    show([_row(user) for user in found], f"Users: {total}")


@user_commands.command("show")
@click.argument("user_id", type=click.IntRange(1))
def show_user(user_id: int) -> None:
    """Show one account and its quota. Exits with 1 if there is none."""
    user = services().users.find_by_id(user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}")
    _show(user)


@user_commands.command("find")
def find_user() -> None:
    """Show the account of a name, read from the terminal or standard input. Exits with 1 if there is none.

    Not from the command line, which every process of the host can read.
    """
    name = click.prompt("Username") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    user = services().users.find(check_username(name))
    if user is None:
        raise NotFound("There is no user of this name")
    _show(user)


@user_commands.command("set")
@click.argument("user_id", type=click.IntRange(1))
@click.option("--state", type=STATE, help="disabled: no log-in, no calls; silenced: may look, may not call.")
@click.option("--role", type=GIVEN_ROLE, help=WHAT_ROLES_MAY)
@click.option("--trust-level", type=TRUST_LEVEL)
@click.option("--label", callback=_label, help='What it is called: "marketing, laptop 3"; "" for nothing.')
def set_user(user_id: int, state: str | None, role: str | None, trust_level: int | None, label: str | None) -> None:
    """Change an account, in force everywhere within two seconds. Disabling ends all its sessions."""
    if all(value is None for value in (state, role, trust_level, label)):
        raise click.UsageError("Say what to change: --state, --role, --trust-level or --label")
    new_state, new_role = UserState(state) if state else None, UserRole(role) if role else None
    before, after = services().users.change(user_id, new_state, new_role, trust_level, label)
    for action, details in after.changes_since(before).items():
        audit(action, f"user/{user_id}", user_id, **details)
    _show(after)


@user_commands.command("invite")
@click.option("--note", default="", help="Whom it is for.")
@click.option("--role", type=GIVEN_ROLE, default=UserRole.USER.value, help=WHAT_ROLES_MAY)
@click.option("--limit", help="A quota of its own, in dollars. By default QUOTA_USD.")
@click.option("--period", type=click.Choice(PERIODS), help="The time for which the limit is.")
@click.option("--days", type=click.IntRange(1, 365), default=7, help="For so long it can be used.")
def invite(note: str, role: str, limit: str | None, period: str | None, days: int) -> None:
    """Make a one-time link by which somebody signs up. It is shown this once."""
    terms = InvitationTerms(UserRole(role), check_amount("limit", limit), period, note)
    made, text = services().invitations.create(terms, timedelta(days=days), "cli")
    audit("invitation_made", f"invitation/{made.id}", role=role, days=days)
    link = f"{_address()}/register#invitation={text}"
    show([{"id": made.id, "expires_at": made.to_dict(made.created_at)["expires_at"], "link": link}], "Invitation")


@user_commands.command("reset-link")
@click.argument("user_id", type=click.IntRange(1))
def reset_link(user_id: int) -> None:
    """Make a link by which a user sets a new password. It is shown this once, and good once and for an hour.

    Send it to nobody but the account's owner, who is told of it at the next log-in.
    """
    made, text = services().recovery.links.create(user_id, "cli")
    audit("reset_link_made", f"user/{user_id}", user_id)
    expires_at = made.expires_at.isoformat(timespec="seconds")
    show([{"id": made.id, "expires_at": expires_at, "link": f"{_address()}/reset#reset={text}"}], "Reset link")


@user_commands.command("delete")
@click.argument("user_id", type=click.IntRange(1))
@click.confirmation_option(prompt="Delete this account with all that is its owner's? It can't be undone")
def delete(user_id: int) -> None:
    """Delete an account, in force everywhere within two seconds. What its calls have cost stays, under its number."""
    services().leaving.delete(user_id)
    audit("account_deleted", f"user/{user_id}", user_id)
    show([{"id": user_id, "deleted": True}], "User")


def _address() -> str:
    config = services().config
    return config.public_url or f"http://127.0.0.1:{config.port}"


def _show(user: User) -> None:
    quota = services().quotas.find(f"user/{user.id}")
    amounts = {name: quota.to_dict()[name] if quota else None for name in ("limit_usd", "spent_usd", "remaining_usd")}
    show([_row(user) | amounts], "User")


def _row(user: User) -> dict[str, Any]:
    """For people without the label, which is what the account is called if it has one."""
    shown = user.to_dict()
    return {name: shown[name] for name in shown if name != "label"} if is_for_people() else shown
