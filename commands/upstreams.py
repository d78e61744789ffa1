"""Operator commands for upstreams: `flask --app app upstreams list|add|update|remove|check`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import click

from commands.printing import Commands, audit, is_for_people, services, show
from pool.overview import upstream_overview
from upstream.check import check
from upstream.registry import Keep, Upstream, check_key

upstream_commands = Commands("upstreams", help="Services besides the pool of OpenRouter keys.")

ON_A_TERMINAL = ("id", "name", "base_url", "api_key", "is_default", "is_active", "health", "reason", "model_prefixes")


def _terms(command: Callable[..., None]) -> Callable[..., None]:
    """What an upstream may be told of itself, as options."""
    options = [
        click.option("--connect-timeout", type=int, help="Seconds to open a connection."),
        click.option("--timeout", type=int, help="Seconds until an answer's first content."),
        click.option("--idle-timeout", type=int, help="Idle timeout: seconds of silence within an answer."),
        click.option(
            "--default/--no-default", "is_default", default=None, help="Takes the calls that ask for no other."
        ),
        click.option("--active/--inactive", "is_active", default=None, help="Whether calls may go there."),
        click.option("--prefix", "prefixes", multiple=True, help="BEGIN=INSTEAD, of model names. All that there are."),
        click.option(
            "--price", "prices", multiple=True, help="MODEL=PROMPT/COMPLETION, in dollars per million tokens."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@upstream_commands.command("list")
def list_upstreams() -> None:
    """Show them, by name, and how they are."""
    _show(services().upstreams.rows(), "Upstreams")


@upstream_commands.command("add")
@click.argument("name")
@click.option("--base-url", required=True, help="Such as https://api.openai.com/v1.")
@click.option(
    "--no-key", is_flag=True, help="It needs no key. Otherwise one is asked for, or read from standard input."
)
@_terms
def add(name: str, base_url: str, no_key: bool, **options: Any) -> None:
    """Add an upstream."""
    api_key = None if no_key else _read_key()
    upstreams, given = services().upstreams, {"name": name, "base_url": base_url, **_given(options)}
    added = upstreams.add(upstreams.check(given), api_key)
    _note("upstream_added", added, has_new_key=api_key is not None)
    _show([added], "Added")


@upstream_commands.command("update")
@click.argument("name")
@click.option("--base-url", help="Such as https://api.openai.com/v1.")
@click.option("--rename", help="Its new name.")
@click.option("--new-key", is_flag=True, help="Ask for another key, or read it from standard input.")
@click.option("--no-key", is_flag=True, help="Forget its key.")
@click.option("--no-prefixes", is_flag=True, help="Map no model names to it any more.")
@click.option("--no-prices", is_flag=True, help="Forget what its models cost.")
@_terms
def update(
    name: str,
    base_url: str | None,
    rename: str | None,
    new_key: bool,
    no_key: bool,
    no_prefixes: bool,
    no_prices: bool,
    **options: Any,
) -> None:
    """Change what is given, and leave the rest as it is."""
    for is_new, is_none, text in (
        (new_key, no_key, "--new-key or --no-key"),
        (options["prefixes"], no_prefixes, "--prefix or --no-prefixes"),
        (options["prices"], no_prices, "--price or --no-prices"),
    ):
        if is_new and is_none:
            raise click.UsageError(f"Give {text}, not both")
    upstreams = services().upstreams
    before = upstreams.get(name)
    changes = {"name": rename, "base_url": base_url}
    given = before.terms.to_dict() | {field: text for field, text in changes.items() if text} | _given(options)
    given |= ({"model_prefixes": {}} if no_prefixes else {}) | ({"prices": {}} if no_prices else {})
    api_key: str | Keep | None = Keep.KEY
    if new_key or no_key:
        api_key = _read_key() if new_key else None
    changed = upstreams.change(name, upstreams.check(given), api_key)
    _note("upstream_changed", changed, has_new_key=new_key or no_key)
    _show([changed], "Changed")


@upstream_commands.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Forget an upstream and its key. Its calls stay in the log."""
    gone = services().upstreams.remove(name)
    _note("upstream_removed", gone, has_new_key=False)
    show([{"name": gone.terms.name, "state": "removed"}], "Removed")


@upstream_commands.command("check")
@click.argument("name", required=False)
def check_upstreams(name: str | None) -> None:
    """Ask each upstream, or one, for its models. Exits with 1 if one can't be reached or does not take its key."""
    upstreams = services().upstreams
    found = [upstreams.get(name)] if name else upstreams.rows()
    results = [check(upstreams, upstream) for upstream in found]
    show([asdict(result) for result in results], "Upstreams")
    sys.exit(0 if all(result.ok for result in results) else 1)


def _read_key() -> str:
    if sys.stdin.isatty():
        text = click.prompt("The upstream's key", hide_input=True)
    else:
        text = sys.stdin.buffer.read().decode(errors="replace")
    text = text.strip()
    check_key(text)
    return text


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The fields that options were given for."""
    given: dict[str, Any] = {}
    for name in ("connect_timeout", "timeout", "idle_timeout"):
        if options[name] is not None:
            given[f"{name}_seconds"] = options[name]
    given |= {name: options[name] for name in ("is_default", "is_active") if options[name] is not None}
    if options["prefixes"]:
        given["model_prefixes"] = dict(_pairs("--prefix", options["prefixes"]))
    if options["prices"]:
        given["prices"] = {model: _price(text) for model, text in _pairs("--price", options["prices"])}
    return given


def _pairs(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [text.rpartition("=") for text in texts]
    if not all(equals for _, equals, _ in pairs):
        raise click.BadParameter("must have a =", param_hint=option)
    return [(name, value) for name, _, value in pairs]


def _price(text: str) -> dict[str, float]:
    prompt, _, completion = text.partition("/")
    try:
        return {"prompt": float(prompt), "completion": float(completion)}
    except ValueError:
        raise click.BadParameter("must be MODEL=PROMPT/COMPLETION, as gpt-4o=2.5/10", param_hint="--price") from None


def _note(action: str, upstream: Upstream, has_new_key: bool) -> None:
    audit(action, f"upstream/{upstream.terms.name}", base_url=upstream.terms.base_url, has_new_key=has_new_key)


def _show(found: Sequence[Upstream], title: str) -> None:
    rows = upstream_overview(found, services().db, services().clock.now())
    if is_for_people():
        rows = [{name: row[name] for name in ON_A_TERMINAL} for row in rows]
    show(rows, title)
