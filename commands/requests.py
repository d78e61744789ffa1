"""Operator commands for single requests: `flask --app app requests`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from accounts.labels import called, with_labels
from billing import refused_calls
from billing.records import REQUEST_ID
from billing.reports.log_items import LogItem
from billing.reports.one_request import get_request
from billing.reports.row_filter import Ending, Order, RowFilter, statuses_of
from billing.reports.statistics import UsageFilter, find_pool_key, find_upstream
from commands.printing import Commands, is_for_people, services, show
from foundation.errors import BadRequest
from foundation.money import NANO
from pool.names import short_name
from upstream.registry import OPENROUTER

request_commands = Commands("requests", help="Single requests, and why they failed.")

MOST = 1000


def _status(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text not in {None, "ok", "error"}:
        try:
            statuses_of(str(text))
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return text


def _request_id(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not REQUEST_ID.fullmatch(text):
        raise click.BadParameter("must be an id, or its first 12 characters at least, all of them 0 to 9 or a to f")
    return text


@request_commands.command("list")
@click.option(
    "--id", "request_id", metavar="ID", callback=_request_id, help="An id, or the first 12 characters of it at least."
)
@click.option("--user", "user_id", type=click.IntRange(1), help="Of the user of this number.")
@click.option("--key", "client_key_id", type=click.IntRange(1), help="With the client key of this number.")
@click.option("--pool-key", help="Carried by the pool key of this name.")
@click.option("--upstream", help=f"Carried by this upstream; {OPENROUTER} for the pool.")
@click.option("--model", help="A part of the model's name.")
@click.option("--status", callback=_status, help="error, ok, a status (429) or a class of them (4xx).")
@click.option("--outcome", type=click.Choice([one.value for one in Ending]), help="How it ended.")
@click.option("--error-type", help="Why, in a word: rate_limit_exceeded.")
@click.option("--min-cost", type=click.FloatRange(0, 1_000_000), help="Cost so many dollars or more.")
@click.option("--min-ms", type=click.IntRange(0), help="Took so many milliseconds or more.")
@click.option(
    "--hours", default=24, type=click.IntRange(1, 24 * 366), help="In so many hours up to now.", show_default=True
)
@click.option(
    "--sort", default=Order.NEWEST.value, type=click.Choice([one.value for one in Order]), help="Which come first."
)
@click.option("--count", default=20, type=click.IntRange(1, MOST), help="How many.", show_default=True)
def list_requests(hours: int, count: int, **asked: Any) -> None:
    """List requests, newest first.

    \b
    Examples:
      flask --app app requests list --status 4xx --hours 1
      flask --app app requests list --user 7 --model claude --sort cost
      flask --app app requests list --min-ms 30000 --hours 168
    """
    now = services().clock.now().astimezone(UTC)
    start = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
    found = services().usage_log.page(_calls(start, asked), 1, count)
    show([_line(item) if is_for_people() else item.to_dict(for_operator=True) for item in found.items], "Requests")
    if found.searched_since:
        click.echo(f"Searched back to {found.searched_since:%Y-%m-%d %H:%M} UTC only: ask for fewer hours", err=True)


def _calls(start: datetime, asked: dict[str, Any]) -> UsageFilter:
    """Raises BadRequest for what names nothing that there is."""
    status, min_cost = asked["status"], asked["min_cost"]
    rows = RowFilter(
        asked["request_id"],
        statuses_of(status) if status not in {None, "ok", "error"} else None,
        asked["outcome"] and Ending(asked["outcome"]),
        asked["error_type"],
        None if min_cost is None else round(min_cost * NANO),
        asked["min_ms"],
        Order(asked["sort"]),
    )
    user_id, key_id = asked["user_id"], asked["client_key_id"]
    if key_id is not None and user_id is None:
        user_id = services().client_keys.get(key_id, with_revoked=True).user_id
    return UsageFilter(
        user_id,
        key_id,
        pool_key_id=_number("pool key", asked["pool_key"], find_pool_key),
        is_error={"error": True, "ok": False}.get(status),
        start=None if asked["request_id"] else start,
        upstream_id=_number("upstream", asked["upstream"], find_upstream),
        model_part=asked["model"] and asked["model"].lower(),
        rows=None if rows == RowFilter() else rows,
    )


def _number(what: str, name: str | None, find: Any) -> int | None:
    found: int | None = None if name is None else find(services().db, name)
    if name is not None and found is None:
        raise BadRequest(f"There is no {what} {name}")
    return found


def _line(item: LogItem) -> dict[str, object]:
    """As much of a request as fits 100 columns."""
    took = None if item.total_ms is None else f"{item.total_ms / 1000:.1f}"
    cost = None if item.cost_nano is None else f"{item.cost_nano / NANO:.6f}"
    return {
        "request": item.request_id[:12],
        "time": f"{item.created_at:%m-%d %H:%M:%S}",
        "user": called(item.user_id, item.user_label),
        "model": item.model,
        "status": item.status,
        "why": item.error_type or ("" if item.outcome == Ending.COMPLETE else item.outcome),
        "dollars": cost,
        "s": took,
    }


@request_commands.command("show")
@click.argument("request_id")
def show_request(request_id: str) -> None:
    """Show one request with its tries. REQUEST_ID is in the answer's X-Request-Id, and in the log."""
    found = get_request(services().db, request_id)
    tries = found.pop("attempts")
    if not is_for_people():
        show([found | {"attempts": tries}], "Request")
        return
    found["pool_key"] = _short(found["pool_key"])
    show([{"what": name, "is": value} for name, value in found.items() if value is not None], f"Request {request_id}")
    show([one | {"pool_key": _short(one["pool_key"])} for one in tries], "Tries")


def _short(name: str | None) -> str | None:
    return None if name is None else short_name(name)


@request_commands.command("refused")
@click.option("--hours", default=24, type=click.IntRange(1, 24 * 366), help="In so many hours; by default 24.")
def show_refused(hours: int) -> None:
    """Show refusals that have no row in the log: of strangers, and of callers who ask far too often."""
    since = services().clock.now() - timedelta(hours=hours)
    found = refused_calls.latest(services().db, since, 1000)
    show(with_labels(services().db, found, user_label="caller"), "Refused")
