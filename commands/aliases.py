"""Operator commands for aliases: `flask --app app aliases list|set|remove`."""

from __future__ import annotations

import click

from commands.printing import Commands, audit, is_for_people, services, show
from gateway.aliases import Alias

alias_commands = Commands("aliases", help="Other names for models.")


@alias_commands.command("list")
def list_aliases() -> None:
    """Show them, by name."""
    _show(services().aliases.rows(), "Aliases")


@alias_commands.command("set")
@click.argument("name")
@click.argument("models", nargs=-1, required=True, metavar="MODEL[=WEIGHT]...")
def set_alias(name: str, models: tuple[str, ...]) -> None:
    """Let a name lead to a model, or by weight to one of several.

    A call costs what the model costs that it is led to, and whoever serves that model reads its prompt.
    """
    weighted = dict(map(_weighted, models))
    if len(weighted) != len(models):
        raise click.BadParameter("a model is given twice", param_hint="MODEL")
    changed = services().aliases.set(name, weighted)
    _note("alias_set", changed)
    _show([changed], "Set")


@alias_commands.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Forget an alias. Calls that ask for it are for a model of this name from now on."""
    gone = services().aliases.remove(name)
    _note("alias_removed", gone)
    show([{"name": gone.name, "state": "removed"}], "Removed")


def _weighted(text: str) -> tuple[str, int]:
    model, equals, weight = text.rpartition("=")
    if not equals:
        return text, 1
    if not (weight.isascii() and weight.isdigit()):
        raise click.BadParameter("must be MODEL or MODEL=WEIGHT, as openai/gpt-4o-mini=9", param_hint="MODEL")
    return model, int(weight[:9])


def _note(action: str, alias: Alias) -> None:
    audit(action, f"alias/{alias.name}", models=dict(alias.models))


def _show(found: list[Alias], title: str) -> None:
    rows = [one.to_dict() for one in found]
    if is_for_people():
        rows = [row | {"models": ", ".join(f"{m['model']}={m['weight']}" for m in row["models"])} for row in rows]
    show(rows, title)
