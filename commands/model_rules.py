"""Operator commands for rules of models: `flask --app app model-rules list|set|remove`."""

from __future__ import annotations

from typing import get_args

import click

from commands.printing import Commands, audit, is_for_people, services, show
from gateway.model_rules import LINE, ChooseBy, ModelRule, RuleTerms, fallback_of

model_rule_commands = Commands("model-rules", help="Fallbacks, time-outs and choices of upstreams, by model.")


@model_rule_commands.command("list")
def list_rules() -> None:
    """Show them, by model."""
    _show(services().model_rules.rows(), "Model rules")


@model_rule_commands.command("set")
@click.argument("model")
@click.option("--fallback", "fallbacks", multiple=True, metavar="FALLBACK", help=f"To try, in this order: '{LINE}'")
@click.option("--timeout-seconds", type=int, help="To the first content.")
@click.option("--upstream", "upstreams", multiple=True, metavar="NAME[=WEIGHT]", help="One that carries the model.")
@click.option("--choose-by", type=click.Choice(get_args(ChooseBy)), default="weight", show_default=True)
def set_rule(
    model: str, fallbacks: tuple[str, ...], timeout_seconds: int | None, upstreams: tuple[str, ...], choose_by: ChooseBy
) -> None:
    """Let this hold for calls of a model or alias, in the place of what did before.

    A call costs what the model costs that answers it, and each upstream that it is sent to reads its prompt.
    """
    weighted = dict(map(_weighted, upstreams))
    if len(weighted) != len(upstreams):
        raise click.BadParameter("an upstream is given twice", param_hint="--upstream")
    terms = RuleTerms(tuple(map(fallback_of, fallbacks)), timeout_seconds, weighted, choose_by)
    changed = services().model_rules.set(model, terms)
    _note("model_rule_set", changed)
    _show([changed], "Set")


@model_rule_commands.command("remove")
@click.argument("model")
def remove(model: str) -> None:
    """Forget a rule. Calls of this model go only to where they are sent first from now on."""
    gone = services().model_rules.remove(model)
    _note("model_rule_removed", gone)
    show([{"model": gone.name, "state": "removed"}], "Removed")


def _weighted(text: str) -> tuple[str, int]:
    name, equals, weight = text.partition("=")
    if equals and not (weight.isascii() and weight.isdigit()):
        raise click.BadParameter("must be NAME or NAME=WEIGHT, as local=9", param_hint="--upstream")
    return name, int(weight[:9] or 1)


def _note(action: str, rule: ModelRule) -> None:
    audit(action, f"model-rule/{rule.name}", **rule.terms.to_dict())


def _show(found: list[ModelRule], title: str) -> None:
    rows = [one.to_dict() for one in found]
    if is_for_people():
        rows = [row | _in_words(one.terms) for row, one in zip(rows, found, strict=True)]
    show(rows, title)


def _in_words(terms: RuleTerms) -> dict[str, str]:
    upstreams = ", ".join(f"{name}={weight}" for name, weight in terms.upstreams.items())
    return {"fallbacks": "; ".join(one.line for one in terms.fallbacks), "upstreams": upstreams}
