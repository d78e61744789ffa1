"""`python -m bench.ledger`: how fast the ledger takes calls, shows pages of the log, and loses what is old.

Method. A private MariaDB (with a commit on the disk for each transaction) and a SQLite file. First the journal's
records of calls are applied, in batches as the gateway does. Then the ledger is filled with generated rows of 90 days
and their roll-ups; pages of the log and the statistics are asked for, each several times in turn with others, so that
none profits from having just been read. Last, batches of calls are applied at a fixed rate, before and while old rows
are deleted as the nightly retention does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import ledger_rows
from bench.ledger_rows import BIG_USER, POPULAR_MODEL, RARE_MODEL, SMALL_USER, Filling
from bench.processes import Cores
from bench.report import FOLDER, describe_machine, processor
from billing.ledger import UsageLedger
from billing.reports.request_log import UsageLog
from billing.reports.retention import LogRetention
from billing.reports.statistics import UsageFilter, UsageStats
from config.settings import Config
from db import Database, database_url
from foundation.clock import Clock
from tests.support.mariadb import DatabaseServer

PAGE_SIZE = 20
DEFAULT_ROWS = {"mariadb": 10**7, "sqlite": 10**6}
LIVE_CALLS, LIVE_EVERY_SECONDS, LIVE_SECONDS = 20, 0.1, 20.0
MARIADB_OPTIONS = ("--innodb-flush-log-at-trx-commit=1", "--innodb-log-file-size=512M", "--default-time-zone=+00:00")
FILTERS = {
    "everybody": UsageFilter(),
    "user with a tenth of all": UsageFilter(BIG_USER),
    "user with a thousandth": UsageFilter(SMALL_USER),
    "popular model": UsageFilter(model=POPULAR_MODEL),
    "rare model": UsageFilter(model=RARE_MODEL),
    "errors": UsageFilter(is_error=True),
    "user and errors": UsageFilter(BIG_USER, is_error=True),
    "user and client key": UsageFilter(BIG_USER, client_key_id=2),
    "user and rare model": UsageFilter(BIG_USER, model=RARE_MODEL),
    "rare model and errors": UsageFilter(model=RARE_MODEL, is_error=True),
}

Figures = dict[str, Any]


def call_records(user_id: int, number: int, at_ms: int) -> Iterator[dict[str, Any]]:
    """What a journal holds of one streamed call."""
    request_id = f"{at_ms:012x}{secrets.token_hex(10)}"
    key = {"request_id": request_id, "attempt": 1}
    yield key | {
        "state": "dispatched",
        "user_id": user_id,
        "client_key_id": None,
        "pool_key_id": 1 + number % 5,
        "model": f"vendor/model-{number % 38}",
        "is_stream": True,
        "user_quota_id": None,
        "key_quota_id": None,
        "reserved_nano": 1_000_000,
        "estimate_nano": 1_000_000,
    }
    yield key | {"state": "streaming", "generation_id": f"gen-{request_id}"}
    ended = {"is_last": True, "http_status": 200, "outcome": "complete", "first_byte_ms": 300, "total_ms": 900}
    cost = {"source": "stream", "cost_nano": 123_456, "prompt_tokens": 1000, "completion_tokens": 200}
    yield key | {"state": "settled"} | cost | ended


def measure_apply(db: Database, calls: int) -> Figures:
    """Rows a second: whole calls at once, and calls that were open in the database before they ended."""
    ledger, at = UsageLedger(db, Clock()), int(time.time() * 1000)
    made = [list(call_records(1 + number % 1000, number, at + number)) for number in range(calls)]
    begun = time.perf_counter()
    ledger.apply("bench", itertools.chain.from_iterable(made))
    whole = time.perf_counter() - begun
    made = [list(call_records(1 + number % 1000, number, at + calls + number)) for number in range(calls)]
    begun = time.perf_counter()
    ledger.apply("bench", (records[0] for records in made))
    ledger.apply("bench", (record for records in made for record in records[1:]))
    twice = time.perf_counter() - begun
    return {"whole_calls_per_second": round(calls / whole), "open_then_ended_per_second": round(calls / twice)}


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def measure_reads(db: Database, turns: int) -> list[Figures]:
    """p50 and longest time of each page and of the statistics."""
    log, stats = UsageLog(db, Clock()), UsageStats(db, Clock())
    asked: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, what in FILTERS.items():
        last = max(1, -(-log.count(what) // PAGE_SIZE))
        for label, page in {"1": 1, "100": 100, "5,000": 5000, f"last ({last:,})": last}.items():
            if page <= last:
                asked[name, label] = lambda what=what, page=page: log.page(what, page, PAGE_SIZE)
    asked["everybody", "statistics, 30 days"] = lambda: stats.summary(UsageFilter(), for_operator=True)
    asked["user with a tenth of all", "statistics, 30 days"] = lambda: stats.summary(UsageFilter(BIG_USER))
    times: dict[tuple[str, str], list[float]] = {place: [] for place in asked}
    for _ in range(turns):
        for place, work in asked.items():
            times[place].append(timed(work))
    return [
        {"filter": name, "page": page, "p50_ms": statistics.median(found), "max_ms": max(found), "first_ms": found[0]}
        for (name, page), found in times.items()
    ]


class Live:
    """Calls applied at a fixed rate, and how long each batch took."""

    def __init__(self, db: Database) -> None:
        self._ledger = UsageLedger(db, Clock())
        self._ending = threading.Event()
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ending.is_set():
            at = int(time.time() * 1000)
            records = [r for number in range(LIVE_CALLS) for r in call_records(1 + number, number, at)]
            self.times.append(timed(lambda records=records: self._ledger.apply("live", records)))
            due += LIVE_EVERY_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def figures(self, when: str) -> Figures:
        """The distribution of the batches' times."""
        cuts = statistics.quantiles(self.times, n=100, method="inclusive")
        return {
            "when": when,
            "batches": len(self.times),
            "p50_ms": cuts[49],
            "p99_ms": cuts[98],
            "max_ms": max(self.times),
        }


def measure_retention(db: Database, rows: int, until: datetime, filled: int) -> list[Figures]:
    """Batches of live calls alone, and while `rows` old rows are deleted."""
    with Live(db) as alone:
        time.sleep(LIVE_SECONDS)
    age = ledger_rows.DAYS * (1 - min(1.0, rows / filled))
    retention = LogRetention(db, Clock(), 90)
    cutoff = (until - timedelta(days=age)).replace(minute=0, second=0, microsecond=0)
    begun = time.monotonic()
    with Live(db) as busy:
        deleted = sum(retention.delete_before(cutoff, time.sleep))
    took = time.monotonic() - begun
    during = busy.figures("while old rows are deleted")
    return [alone.figures("before"), during | {"deleted": deleted, "seconds": took}]


def measure(kind: str, folder: Path, options: argparse.Namespace) -> Figures:
    """All figures of one kind of database."""
    rows = options.rows or DEFAULT_ROWS[kind]
    server = None
    if kind == "mariadb":
        server = DatabaseServer(folder, *MARIADB_OPTIONS, f"--innodb-buffer-pool-size={options.buffer_pool}")
        url = server.new_database()
        name = url.rpartition("/")[2]
        execute: ledger_rows.Execute = lambda statement: server.execute(statement, name)  # noqa: E731
    else:
        url = f"sqlite:///{folder}/ledger.db"
    db = Database(database_url(Config(database_url=url)))
    try:
        db.upgrade()
        found: Figures = {"database": kind, "rows": rows, "apply": measure_apply(db, options.calls)}
        until = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)  # today is for live calls
        if not server:
            execute = ledger_rows.sqlite_execute(f"{folder}/ledger.db")
        begun = time.monotonic()
        Filling(db.kind, rows, until).fill(
            execute, lambda text: print(f"\r{kind}: {text}    ", end="", file=sys.stderr)
        )
        execute("ANALYZE TABLE usage_ledger, usage_rollups" if server else "PRAGMA wal_checkpoint(TRUNCATE)")
        found["fill_seconds"] = round(time.monotonic() - begun)
        found["apply_when_full"] = measure_apply(db, options.calls)
        found["reads"] = measure_reads(db, options.turns)
        found["retention"] = measure_retention(db, options.delete, until, rows)
        return found
    finally:
        print(file=sys.stderr)
        db.close()
        if server:
            server.stop()


def tables(found: Figures) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of each table of one database's figures."""
    title = f"{found['database']}, {found['rows']:,} rows"
    applied = [
        [label, f"{found[name]['whole_calls_per_second']:,}", f"{found[name]['open_then_ended_per_second']:,}"]
        for label, name in (("empty", "apply"), ("full", "apply_when_full"))
    ]
    yield f"{title}: calls a second into the ledger", ["ledger", "whole calls", "open first, then ended"], applied
    reads = [
        [one["filter"], one["page"], *(f"{one[name]:.1f}" for name in ("p50_ms", "max_ms"))] for one in found["reads"]
    ]
    yield f"{title}: pages of {PAGE_SIZE}", ["filter", "page", "p50 ms", "max ms"], reads
    live = [
        [one["when"], f"{one['batches']:,}", *(f"{one[name]:.1f}" for name in ("p50_ms", "p99_ms", "max_ms"))]
        for one in found["retention"]
    ]
    yield f"{title}: batches of {LIVE_CALLS} live calls", ["when", "batches", "p50 ms", "p99 ms", "max ms"], live


def markdown(results: list[Figures], machine: dict[str, str]) -> str:
    """The tables for people."""
    text = "# The ledger\n\n" + "\n".join(f"* {name}: {value}" for name, value in machine.items()) + "\n"
    for found in results:
        for title, columns, rows in tables(found):
            lines = [columns, ["---"] * len(columns), *rows]
            text += f"\n## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
        during = found["retention"][1]
        text += (
            f"\n{during['deleted']:,} rows deleted in {during['seconds']:.0f} s. Filled in {found['fill_seconds']} s.\n"
        )
    return text


def main() -> None:
    """Measure, print, and write bench/results/ledger.json and ledger.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", choices=[*DEFAULT_ROWS], action="append")
    parser.add_argument("--rows", type=int, help="rows of the ledger; by default 10^7 (MariaDB) and 10^6 (SQLite)")
    parser.add_argument("--delete", type=int, default=10**6, help="old rows to delete under live calls")
    parser.add_argument("--calls", type=int, default=20_000, help="calls to apply")
    parser.add_argument("--turns", type=int, default=15, help="how often each page is asked for")
    parser.add_argument("--buffer-pool", default="1G", help="of MariaDB")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    options = parser.parse_args()
    results = []
    for kind in options.database or DEFAULT_ROWS:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(kind, Path(folder), options))
    machine = describe_machine(Cores.choose()) | {"cores": f"{os.cpu_count()} {processor()}"}
    for found in results:
        for title, columns, rows in tables(found):
            table = Table(*columns, title=title)
            for row in rows:
                table.add_row(*row)
            Console().print(table)
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "ledger.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    (options.folder / "ledger.md").write_text(markdown(results, machine))


if __name__ == "__main__":
    main()
