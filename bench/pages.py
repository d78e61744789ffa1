"""`make bench-pages`: how soon the pages of a service are there that has ten million requests in its log.

Method. A private MariaDB is filled as for `bench.ledger`, with 90 days up to the end of today, and with what belongs to
it: 998 users with two client keys each, the keys of the pool that carried the calls, and a hundred entries of the audit
log for each user. Then one gateway starts on it, as in production. The user with a tenth of all calls is an admin as
well; another one has a thousandth. Their pages are asked for with the cookie that a browser would have, over one
kept-alive connection, each once in every turn, so that none profits from having just been read. What is measured is the
time from the request to the last byte of the answer: more than the server's own time. Of a file it is the time to the
end of its first line with a request.

It fails (exit code 1) for an answer other than 200, if what a page sums up is not what its rows say when they are
counted one by one, and if the p95 of a page is not below the goal. `others` is the share of the machine that strangers
took.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
from rich.console import Console
from rich.table import Table

from bench.ledger_rows import BIG_USER, POPULAR_MODEL, RARE_MODEL, SMALL_USER
from bench.load import Way
from bench.measures import percentile
from bench.meter import Meter
from bench.pages_world import USERS, World
from bench.processes import Cores, pin
from bench.report import FOLDER, describe_machine
from bench.set_up import Target, WrongStatus, ask
from billing.reports.request_log import UsageLog, request_id_at
from billing.reports.statistics import UsageFilter
from config.settings import Config
from db import Database, database_url
from foundation.clock import Clock
from web.usage_query import MAX_DAYS

GOAL_MS = 200
PAGE_SIZE = 20  # the pages' own
REST_SECONDS = 0.5  # after a file was left: until the gateway has noticed, it goes on writing, and others wait
DAY = timedelta(days=1)
WHO = {BIG_USER: "admin with a tenth of all calls", SMALL_USER: "user with a thousandth"}


@dataclass(frozen=True)
class Page:
    """What is asked for. shows: a text that has to be on it. is_file: it is read to its first line with a request."""

    name: str
    visitor: int
    path: str
    shows: str = ""
    is_file: bool = False


@dataclass
class Found:
    """How long a page took each time, in seconds, and its answers' length."""

    page: Page
    seconds: list[float] = field(default_factory=list)
    length: int = 0

    def figures(self) -> dict[str, Any]:
        """Times in milliseconds. first_ms: before anything of it had been read."""
        return {
            "page": self.page.name,
            "visitor": WHO[self.page.visitor],
            "p50_ms": round(percentile(self.seconds, 50), 1),
            "p95_ms": round(percentile(self.seconds, 95), 1),
            "max_ms": round(1000 * max(self.seconds), 1),
            "first_ms": round(1000 * self.seconds[0], 1),
            "kb": round(self.length / 1000, 1),
        }


class Browser:
    """One kept-alive connection, with the cookies of those who look at pages."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = self._connected()
        self._cookies: dict[int, str] = {}

    def enter(self, visitor: int, account: dict[str, str]) -> None:
        """Log somebody in, as the pages' script does. Raises WrongStatus."""
        token = ask(self._port, "/login", account, expect=200)["token"]
        self._connection.request("POST", "/session", headers={"Authorization": f"Bearer {token}"})
        response = self._connection.getresponse()
        response.read()
        if response.status != 204:
            raise WrongStatus(f"/session answered {response.status} instead of 204")
        self._cookies[visitor] = response.headers["Set-Cookie"].partition(";")[0]

    def ask(self, page: Page) -> tuple[float, bytes]:
        """The seconds that an answer took, and as much of it as was read. Raises WrongStatus."""
        # A file is left when it has begun, and with it its connection.
        connection = self._connected() if page.is_file else self._connection
        begun = time.perf_counter()
        connection.request("GET", page.path, headers={"Cookie": self._cookies[page.visitor]})
        response = connection.getresponse()
        content = response.readline() + response.readline() if page.is_file else response.read()
        took = time.perf_counter() - begun
        if page.is_file:
            connection.close()
            time.sleep(REST_SECONDS)
        if response.status != 200 or page.shows.encode() not in content:
            raise WrongStatus(f"{page.path} answered {response.status}, or without {page.shows!r}: {content[:200]!r}")
        return took, content

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.connect()
        return connection


def pages_of(world: World, log: UsageLog) -> Iterator[Page]:
    """All that is asked for, with the sums that the rows themselves have."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    widest = urlencode({"start_date": (today - (MAX_DAYS - 1) * DAY).date(), "end_date": today.date()})

    def counted(first: datetime, user_id: int | None = None) -> str:
        begin, end = request_id_at(first), request_id_at(today + DAY)
        whose = "" if user_id is None else f" AND user_id = {user_id}"
        rows = f"FROM usage_ledger WHERE request_id >= '{begin}' AND request_id < '{end}'{whose}"
        return f">{world.execute(f'SELECT COUNT(*) {rows}')[0][0]:,}<"

    month, long_ago = today - 29 * DAY, today - (MAX_DAYS - 1) * DAY
    for user_id in WHO:
        yield Page("dashboard, 30 days", user_id, "/dashboard", counted(month, user_id))
        yield Page(f"dashboard, {MAX_DAYS} days", user_id, f"/dashboard?{widest}", counted(long_ago, user_id))
        yield Page("dashboard's CSV, first line", user_id, f"/dashboard/requests.csv?{widest}", "settled", True)
        yield Page("keys", user_id, "/keys")
    yield Page("operator's overview, 30 days", BIG_USER, "/operator", counted(month))
    yield from operator_logs(world, log, month)
    yield Page("operator's CSV, first line", BIG_USER, "/operator/logs.csv", "settled", True)
    lists = {
        "audit": ("/operator/audit", "SELECT COUNT(*) FROM audit_log"),
        "audit, log-ins": ("/operator/audit?action=logged_in", None),
        "audit, of a user": (f"/operator/audit?user_id={BIG_USER}", None),
        "users": ("/operator/users", f"SELECT {USERS}"),
        "client keys": ("/operator/keys", f"SELECT {2 * USERS}"),
        "client keys, of a user": (f"/operator/keys?user_id={BIG_USER}", None),
        "pool": ("/operator/pool", None),
        "a user": (f"/operator/users/{BIG_USER}", None),
        "upstreams": ("/operator/upstreams", None),
    }
    for name, (path, total) in lists.items():
        yield Page(f"operator's {name}", BIG_USER, path)
        if total:
            last = -(-int(world.execute(total)[0][0]) // PAGE_SIZE)
            yield Page(f"operator's {name}, page {last:,}", BIG_USER, f"{path}?page={last}")


def operator_logs(world: World, log: UsageLog, month: datetime) -> Iterator[Page]:
    """The first and the last page of the log, for everybody and for filters."""
    [[pool_key_id, pool_key]] = world.execute(
        "SELECT id, name FROM api_keys WHERE id = (SELECT MIN(pool_key_id) FROM usage_rollups WHERE period = 'd' "
        "AND user_id = 0)"
    )
    filters: dict[str, tuple[dict[str, Any], UsageFilter]] = {
        "everybody": ({}, UsageFilter()),
        "of a user": ({"user_id": BIG_USER}, UsageFilter(BIG_USER)),
        "popular model": ({"model": POPULAR_MODEL}, UsageFilter(model=POPULAR_MODEL)),
        "rare model": ({"model": RARE_MODEL}, UsageFilter(model=RARE_MODEL)),
        "pool key": ({"pool_key": pool_key}, UsageFilter(pool_key_id=pool_key_id)),
        "upstream": ({"upstream": "openrouter"}, UsageFilter(upstream_id=0)),
        "errors": ({"status": "error"}, UsageFilter(is_error=True)),
        "user and errors": ({"user_id": BIG_USER, "status": "error"}, UsageFilter(BIG_USER, is_error=True)),
        "user and rare model": ({"user_id": BIG_USER, "model": RARE_MODEL}, UsageFilter(BIG_USER, model=RARE_MODEL)),
        "30 days": ({"start": month.date()}, UsageFilter(start=month)),
    }
    for name, (query, wanted) in filters.items():
        last = max(1, -(-log.count(wanted) // PAGE_SIZE))
        for page in {1: 1, last: last}:
            path = f"/operator/logs?{urlencode({**query, 'page': page})}"
            yield Page(f"operator's log, {name}, page {page:,}", BIG_USER, path)


def measure(world: World, turns: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Ask for every page in every turn. Raises WrongStatus."""
    program, port, _seconds = world.bench.start_gateway("granian")
    db = Database(database_url(Config(database_url=world.url)))
    try:
        tell("counting rows")
        found = [Found(page) for page in pages_of(world, UsageLog(db, Clock()))]
        with closing(Browser(port)) as browser:
            for user_id in WHO:
                browser.enter(user_id, world.accounts[user_id])
            database = psutil.Process(world.server.process.pid)
            before = sum(database.cpu_times()[:2])
            with Meter(Target("granian", program, port, Way("", "")), world.bench) as meter:
                for turn in range(turns):
                    tell(f"turn {turn + 1} of {turns}")
                    for one in found:
                        took, content = browser.ask(one.page)
                        one.seconds.append(took)
                        one.length = len(content)
    finally:
        db.close()
        program.stop()
    cores = 2 if world.bench.cores.gateway is not None else psutil.cpu_count() or 1
    others = meter.others_percent - 100 * (sum(database.cpu_times()[:2]) - before) / (meter.wall * cores)
    return {
        "rows": world.rows,
        "turns": turns,
        "others_percent": round(max(0.0, others), 1),
        "pages": [one.figures() for one in found],
    }


COLUMNS = {
    "page": "page",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "max_ms": "slowest ms",
    "first_ms": "first ms",
    "kb": "kB",
}


def tables(results: dict[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """Title and rows of the table of each visitor."""
    for visitor in WHO.values():
        pages = [page for page in results["pages"] if page["visitor"] == visitor]
        yield visitor, [[str(page[name]) for name in COLUMNS] for page in pages]


def priority() -> str:
    """Whether our processes wait for others. On a machine that is not idle, `chrt -r 1` has them go first."""
    if not hasattr(os, "sched_getscheduler"):
        return "usual"
    return "usual" if os.sched_getscheduler(0) == os.SCHED_OTHER else "real-time: ours went before those of others"


def markdown(results: dict[str, Any], machine: dict[str, str]) -> str:
    """The tables for people."""
    others = {"taken by others": f"{results['others_percent']} % of the cores"}
    text = f"# Pages, {results['rows']:,} requests in the log\n\n"
    text += "".join(f"* {name}: {value}\n" for name, value in (machine | others).items())
    for title, rows in tables(results):
        lines = [[*COLUMNS.values()], ["---", *["---:"] * (len(COLUMNS) - 1)], *rows]
        text += f"\n## {title[0].upper()}{title[1:]}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text + f"\nEach page {results['turns']} times. Goal: p95 < {GOAL_MS} ms.\n"


def faults(results: dict[str, Any]) -> list[str]:
    """The pages that are too slow."""
    slow = [page for page in results["pages"] if page["p95_ms"] >= GOAL_MS]
    return [f"{page['page']}: p95 {page['p95_ms']} ms, not below {GOAL_MS} ms" for page in slow]


def run(world: World, options: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """Fill the database, unless that was done before, and measure."""
    with world.bench.stand_in_running():
        if not world.rows:
            world.fill(options.rows, tell)
        return measure(world, options.turns, tell)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, and write pages.json and pages.md; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description="Measure pages of a full ledger.")
    parser.add_argument(
        "--rows", type=int, default=10**7, help="requests in the log; at least 10,000, or the small user has none"
    )
    parser.add_argument("--turns", type=int, default=30, help="how often each page is asked for")
    parser.add_argument("--buffer-pool", default="1G", help="of MariaDB")
    parser.add_argument("--data", type=Path, help="keep the database in this folder; if it is full, measure it again")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    options = parser.parse_args(arguments)
    cores, console = Cores.choose(), Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing outlives us

    def tell(text: str) -> None:
        if console.is_terminal:
            print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)

    with ExitStack() as stack:
        data = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pages-bench-")))
        world = World(data, cores, options.buffer_pool)  # before we are pinned: MariaDB takes any core
        stack.callback(world.close)
        pin(cores.load)
        try:
            results = run(world, options, tell)
        except (RuntimeError, OSError) as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            tell("")
    machine = describe_machine(cores) | {"priority": priority()}
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "pages.json").write_text(json.dumps({"machine": machine} | results, indent=1) + "\n")
    (options.folder / "pages.md").write_text(markdown(results, machine))
    if not console.is_terminal:
        for page in results["pages"]:
            print(json.dumps(page))
    else:
        for title, rows in tables(results):
            table = Table(*COLUMNS.values(), title=title)
            for row in rows:
                table.add_row(*row)
            console.print(table)
    slow = faults(results)
    for fault in slow:
        sys.stderr.write(f"{fault}\n")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
