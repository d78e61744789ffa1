"""Operator commands for what was used: `flask --app app logs` and `usage`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import click

from billing import daily_check_rows, set_aside
from billing.records import OPEN
from billing.reports import export as usage_export
from billing.reports.latency import Last, LatencyBy, Span, read_latency, shown
from billing.reports.log_items import LogItem
from billing.reports.lost_tries import lost_tries
from billing.reports.retention import log_end
from billing.reports.shares import MOST_ITEMS, read_shares
from billing.reports.shares_asked import By, Metric, SharesAsked
from billing.reports.statistics import UsageFilter
from commands.printing import Commands, audit, is_for_people, services, show
from db import DatabaseError
from pool.names import short_name

logs_commands = Commands("logs", help="The request log.")
usage_commands = Commands("usage", help="What was spent.")

DAY = click.DateTime(["%Y-%m-%d"])
NAMELESS = {"user": "paid by the operator", "key": "without a key", "upstream": "none: refused here"}
FILE = click.Path(path_type=Path)


@logs_commands.command("export")
@click.option("--format", "name", type=click.Choice(list(usage_export.MIMETYPES)), required=True)
@click.option("--start", type=DAY, help="First day (UTC); by default the oldest.")
@click.option("--end", type=DAY, help="Last day (UTC); by default today.")
@click.option("--output", type=FILE, help="A new file; by default standard output.")
def export(name: str, start: datetime | None, end: datetime | None, output: Path | None) -> None:
    """Write the request log, oldest first."""
    first = start.replace(tzinfo=UTC) if start else None
    asked = UsageFilter(start=first, end=end.replace(tzinfo=UTC) + timedelta(days=1) if end else None)
    if output:
        with _new_file(output) as file:
            _export(file, asked, name)
        show([{"exported": str(output)}], "Exported")
    elif sys.stdout.isatty():
        raise click.ClickException("Give --output FILE, or send the output into a file or a pipe")
    else:
        _export(sys.stdout.buffer, asked, name)


@logs_commands.command("cleanup")
@click.option("--days", type=click.IntRange(1, 36_500), help="Keep so many days; by default LOG_RETENTION_DAYS.")
@click.option("--export-to", "output", type=FILE, help="First write what is deleted to this new .csv or .jsonl file.")
def clean_up(days: int | None, output: Path | None) -> None:
    """Delete old rows of the request log; statistics stay. May be stopped and run again."""
    days = days or services().config.log_retention_days
    if not days:
        raise click.ClickException("LOG_RETENTION_DAYS is 0, so nothing is ever old; give --days N")
    cutoff = services().retention.cutoff(days)
    asked = UsageFilter(end=cutoff)
    still_open: set[str] = set()
    if output:
        name = output.suffix.lstrip(".")
        if name not in usage_export.MIMETYPES:
            raise click.ClickException("--export-to must name a file that ends with .csv or .jsonl")
        with _new_file(output) as file:
            _export(file, asked, name, still_open)
    deleted = 0
    try:
        total = services().usage_log.count(asked)
        for count in _watched(services().retention.delete_before(cutoff, time.sleep, still_open), total, "Deleting"):
            deleted += count
    except DatabaseError:
        raise click.ClickException("The database went away; what is deleted stays deleted. Run it again") from None
    log_end(deleted)
    audit("logs_cleaned_up", "logs", deleted=deleted, from_before=cutoff.isoformat())
    show([{"deleted": deleted, "from_before": cutoff.isoformat()}], "Cleaned up")


def _export(file: BinaryIO, asked: UsageFilter, name: str, still_open: set[str] | None = None) -> None:
    """still_open: takes the ids of requests whose cost was still open when they were written."""
    log = services().usage_log

    def walk() -> Iterator[list[LogItem]]:
        from rich.progress import Progress

        with Progress(disable=not is_for_people()) as progress:
            task = progress.add_task("Exporting", total=log.count(asked))
            for items in log.walk(asked):
                if still_open is not None:
                    still_open.update(item.request_id for item in items if item.state in OPEN)
                yield items
                progress.advance(task, len(items))

    try:
        for piece in usage_export.lines(walk(), name, for_operator=True):
            file.write(piece)
        file.flush()
    except DatabaseError:
        raise click.ClickException("The database went away; nothing is deleted. Run it again") from None


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is whole and on the disk."""
    partial = path.with_name(f"{path.name}.partial")
    if path.exists():
        raise click.ClickException(f"{path} exists; name a new file")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        raise click.ClickException(f"Can't write {path} ({error.strerror}); nothing is deleted") from None
    finally:
        partial.unlink(missing_ok=True)


def _watched(counts: Iterable[int], total: int, title: str) -> Iterator[int]:
    """The counts as they come, shown as a bar on a terminal."""
    from rich.progress import Progress

    with Progress(disable=not is_for_people()) as progress:
        task = progress.add_task(title, total=total)
        for count in counts:
            progress.advance(task, count)
            yield count


def _shares(by: str, days: int, metric: str, count: int) -> None:
    today = services().clock.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = today + timedelta(days=1)
    found = read_shares(services().db, SharesAsked(By(by), Metric(metric), end - timedelta(days=days), end))
    rows = [item.to_dict() for item in found.items[:count]]
    if is_for_people():
        rows = [_for_people(by, row, Metric(metric).is_time) for row in rows]
    show(rows, f"By {by}, {days} days and as many before")


def _for_people(by: str, row: dict[str, Any], with_times: bool) -> dict[str, object]:
    found: dict[str, object] = {
        by: row["name"] or NAMELESS.get(by, "none that is known"),
        "dollars": f"{row['cost_usd']:.6f}",
        "before": f"{row['before']['cost_usd']:.6f}",
        "requests": row["requests"],
        "errors": row["errors"],
        "tokens": row["prompt_tokens"] + row["completion_tokens"],
    }
    if with_times:
        found |= {"p50 (s)": _seconds(row["p50_ms"]), "p95 (s)": _seconds(row["p95_ms"])}
    return found


OF_DAYS = click.option(
    "--days", default=30, type=click.IntRange(1, 366), help="So many days up to today.", show_default=True
)
OF_METRIC = click.option(
    "--metric",
    default="cost",
    type=click.Choice([one.value for one in Metric]),
    help="Whose is greatest.",
    show_default=True,
)
OF_COUNT = click.option("--count", default=20, type=click.IntRange(1, MOST_ITEMS), help="How many.", show_default=True)


@usage_commands.command("by-user")
@OF_DAYS
@OF_METRIC
@OF_COUNT
def show_users(days: int, metric: str, count: int) -> None:
    """Show who spent what, and in the time before.

    \b
    Examples:
      flask --app app usage by-user --days 1
      flask --app app usage by-user --metric errors
    """
    _shares(By.USER, days, metric, count)


@usage_commands.command("shares")
@click.option("--by", default="model", type=click.Choice([one.value for one in By]), help="By what.", show_default=True)
@OF_DAYS
@OF_METRIC
@OF_COUNT
def show_shares(by: str, days: int, metric: str, count: int) -> None:
    """Show what was spent by user, client key, model, provider or upstream, and in the time before.

    \b
    Examples:
      flask --app app usage shares --by provider
      flask --app app usage shares --by key --days 7 --metric calls
    """
    _shares(by, days, metric, count)


@usage_commands.command("latency")
@click.option(
    "--by", default="model", type=click.Choice([one.value for one in LatencyBy]), help="By what.", show_default=True
)
@click.option(
    "--last", default="day", type=click.Choice([one.value for one in Last]), help="How far back.", show_default=True
)
def show_latency(by: str, last: str) -> None:
    """Show how fast calls were answered, and how many failed, by model, provider, pool key or upstream.

    \b
    Examples:
      flask --app app usage latency --last hour
      flask --app app usage latency --by pool_key --last 7d
    """
    found = read_latency(services().db, LatencyBy(by), Span.of(Last(last), services().clock.now()))
    rows = [{"name": item.name} | shown(item.sums) for item in found.items]
    if is_for_people():
        rows = [_latency_for_people(by, row) for row in rows]
    show(rows, f"By {by.replace('_', ' ')} since {found.span.since:%Y-%m-%d %H:%M} UTC; times in seconds")


def _latency_for_people(by: str, row: dict[str, Any]) -> dict[str, object]:
    name = "none that is known" if row["name"] is None else row["name"]
    kinds = row["errors_by_kind"]
    return {
        by.replace("_", " "): short_name(name) if by == "pool_key" else name,
        "calls": row["calls"],
        "errors": row["errors"],
        "first byte p50": _seconds(row["first_byte_ms"]["p50"]),
        "p95": _seconds(row["first_byte_ms"]["p95"]),
        "over p50": _seconds(row["total_ms"]["p50"]),
        "p95 ": _seconds(row["total_ms"]["p95"]),
        "tokens/s": row["tokens_per_second"],
        "most frequent error": kinds[0]["kind"] if kinds else None,
    }


def _seconds(ms: int | None) -> str | None:
    return None if ms is None else f"{ms / 1000:.2f}"


@usage_commands.command("checks")
@click.option("--count", default=100, type=click.IntRange(1, 10_000), help="How many of the newest; by default 100.")
def show_usage_checks(count: int) -> None:
    """Show the daily checks of our sums against OpenRouter's, newest first. docs/usage-check.md explains them."""
    checks, _ = daily_check_rows.page(services().db, 1, count)
    rows = [check.to_dict() for check in checks]
    if is_for_people():
        rows = [row | {"key": short_name(row["key"])} for row in rows]
    show(rows, "Our sums and OpenRouter's")


@usage_commands.command("lost")
@click.option("--days", default=30, type=click.IntRange(1, 3660), help="So many days up to today; by default 30.")
def show_lost_tries(days: int) -> None:
    """Show tries that brought nobody an answer, day by day, and what OpenRouter may have billed for them."""
    today = services().clock.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = today - timedelta(days=days - 1)
    show(lost_tries(services().db, since, today + timedelta(days=1)), "Tries without an answer")


@usage_commands.command("repair")
def repair() -> None:
    """Apply the journal's records that were set aside and are mended by now; show the others, and why they can't be.

    docs/billing.md says how they are mended. Exits with 1 if any is left.
    """
    try:
        applied, left = set_aside.repair(services().journal.folder, services().ledger)
    except DatabaseError:
        raise click.ClickException("The database did not take them; nothing is lost. Run it again") from None
    except OSError as error:
        raise click.ClickException(
            f"Can't write {services().journal.folder} ({error.strerror}). Run it again"
        ) from None
    if applied:
        audit("usage_repaired", "usage", applied=applied)
    show([{"applied": applied, "left": len(left)}], "Repaired")
    if left:
        show(map(asdict, left), "Left")
        sys.exit(1)
