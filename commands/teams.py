"""Operator commands for teams: `flask --app app teams list|show|create|change|delete|add|role|remove`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from accounts.labels import called, with_labels
from accounts.teams import TeamRole, TeamRow
from billing.quotas.budgets import budget_terms, sets_budget
from billing.quotas.terms import PERIODS, RECOVERIES, check_amount
from commands.printing import Commands, audit, is_for_people, services, show

team_commands = Commands("teams", help="Teams: people who share a quota, and lists of models and upstreams.")

ID = click.IntRange(1, 2**63 - 1)
ROLES = click.Choice([role.value for role in TeamRole])


@team_commands.command("list")
@click.option("--page", default=1, type=click.IntRange(1), help="Which page, newest first.")
@click.option("--page-size", default=100, type=click.IntRange(1, 10_000), help="Teams on a page.")
def list_teams(page: int, page_size: int) -> None:
    """Show the teams."""
    found, total = services().teams.page(page, page_size)
    _show(found, f"Teams: {total}")


@team_commands.command("show")
@click.argument("team_id", type=ID)
def show_team(team_id: int) -> None:
    """Show who is in a team, managers first, and what each has spent in this period."""
    team = services().teams.get(team_id)
    since, spent = services().usage.spent_by_members(team_id, services().quotas.find(team.quota_subject))
    people = [member.to_dict(spent[member.user_id]) for member in services().teams.members(team_id)]
    _show_people(people, f"Team {team.name}, since {since:%Y-%m-%d}")


@team_commands.command("create")
@click.argument("name")
@click.option("--model", "models", multiple=True, help="A model, or a beginning as openai/*; again for more.")
@click.option("--upstream", "upstreams", multiple=True, help="An upstream that it may use; again for more.")
@click.option("--limit", default="none", show_default=True, help="Dollars per period for all together, or none.")
@click.option("--period", type=click.Choice(PERIODS), help="By default QUOTA_PERIOD.")
@click.option("--recovery", type=click.Choice(RECOVERIES), help="By default QUOTA_RECOVERY.")
def create_team(
    name: str,
    models: tuple[str, ...],
    upstreams: tuple[str, ...],
    limit: str,
    period: str | None,
    recovery: str | None,
) -> None:
    """Make a team with nobody in it yet. Its quota is changed by `quota set team/<id>`."""
    limit_nano = check_amount("--limit", None if limit == "none" else limit)
    if limit_nano is None and (period or recovery):
        raise click.UsageError("--period and --recovery need a --limit")
    terms = None if limit_nano is None else budget_terms(services().config, limit_nano, period, recovery)
    fields = {"name": name, "models": list(models) or None, "upstreams": list(upstreams) or None}
    made = services().teams.create(fields, sets_budget(terms) if terms else None)
    audit("team_made", made.quota_subject, fields=fields, quota=str(terms) if terms else None)
    _show([made], "Made")


@team_commands.command("change")
@click.argument("team_id", type=ID)
@click.option("--name", help="Its new name.")
@click.option("--model", "models", multiple=True, help="All that it may use: again for more.")
@click.option("--all-models", is_flag=True, help="It may use all of them.")
@click.option("--upstream", "upstreams", multiple=True, help="All that it may use: again for more.")
@click.option("--all-upstreams", is_flag=True, help="It may use all of them.")
def change_team(
    team_id: int,
    name: str | None,
    models: tuple[str, ...],
    all_models: bool,
    upstreams: tuple[str, ...],
    all_upstreams: bool,
) -> None:
    """Change what is given, and leave the rest as it is; in force everywhere within two seconds."""
    fields: dict[str, Any] = {} if name is None else {"name": name}
    for field, names, takes_all in (("models", models, all_models), ("upstreams", upstreams, all_upstreams)):
        if names and takes_all:
            raise click.UsageError(f"Give --{field[:-1]} or --all-{field}, not both")
        if names or takes_all:
            fields[field] = list(names) or None
    if not fields:
        raise click.UsageError("Say what to change: --name, --model, --all-models, --upstream or --all-upstreams")
    changed = services().teams.change(team_id, fields)
    audit("team_changed", changed.quota_subject, fields=fields)
    _show([changed], "Changed")


@team_commands.command("delete")
@click.argument("team_id", type=ID)
def delete_team(team_id: int) -> None:
    """Dissolve a team. Its people stay, each with their own quota; its client keys are revoked."""
    gone = services().teams.delete(team_id)
    audit("team_deleted", gone.quota_subject, name=gone.name)
    show([{"id": gone.id, "name": gone.name, "state": "deleted"}], "Deleted")


@team_commands.command("add")
@click.argument("team_id", type=ID)
@click.argument("user_id", type=ID)
@click.option("--role", default=TeamRole.MEMBER.value, show_default=True, type=ROLES)
def add_member(team_id: int, user_id: int, role: str) -> None:
    """Add somebody who is in no team: all their calls count in it from now on."""
    services().teams.add(team_id, user_id, TeamRole(role))
    audit("team_member_added", f"team/{team_id}", user_id, role=role)
    _show_change(team_id, user_id, role, "Added")


@team_commands.command("role")
@click.argument("team_id", type=ID)
@click.argument("user_id", type=ID)
@click.argument("role", type=ROLES)
def set_role(team_id: int, user_id: int, role: str) -> None:
    """Make somebody a manager, who is shown what each member spends, or a member again."""
    services().teams.set_role(team_id, user_id, TeamRole(role))
    audit("team_role_changed", f"team/{team_id}", user_id, role=role)
    _show_change(team_id, user_id, role, "Changed")


@team_commands.command("remove")
@click.argument("team_id", type=ID)
@click.argument("user_id", type=ID)
def remove_member(team_id: int, user_id: int) -> None:
    """Remove somebody; the team's client keys that they have made are revoked."""
    services().teams.remove(team_id, user_id)
    audit("team_member_removed", f"team/{team_id}", user_id)
    _show_change(team_id, user_id, None, "Removed")


def _show_change(team_id: int, user_id: int, role: str | None, title: str) -> None:
    show([{"team_id": team_id, "user_id": user_id, "role": role}], title)


def _show_people(people: Sequence[dict[str, Any]], title: str) -> None:
    rows = with_labels(services().db, people, user_label="user_id")
    if is_for_people():
        rows = [{"user": called(row["user_id"], row["user_label"]), **row} for row in rows]
        rows = [{name: row[name] for name in ("user", "role", "joined_at", "spent_usd")} for row in rows]
    show(rows, title)


def _show(found: Sequence[TeamRow], title: str) -> None:
    quotas = services().quotas.find_all([team.quota_subject for team in found])
    shown = {subject: quota.to_dict() for subject, quota in quotas.items()}
    rows = [team.to_dict(shown.get(team.quota_subject)) for team in found]
    show([_for_people(row) for row in rows] if is_for_people() else rows, title)


def _for_people(row: dict[str, Any]) -> dict[str, object]:
    """What fits on a terminal."""
    quota = row["quota"]
    is_limited = quota and quota["limit_usd"] is not None
    return {
        "id": row["id"],
        "name": row["name"],
        "members": row["members"],
        "left": f"${quota['remaining_usd']:.2f} of ${quota['limit_usd']:.2f}" if is_limited else None,
        **{name: ", ".join(row[name]) if row[name] else "all" for name in ("models", "upstreams")},
    }
