"""`python -m bench.sums`: how fast pages of latency and of who spent what are read at ten million calls.

Method. A private MariaDB and a SQLite file with the sums of 90 days of 111,000 calls each, and no call: these pages
read nothing else. 1,000 users with two client keys each call 40 models through five pool keys that are new every day.
Sums by hour are those of the last three days: further back no question goes. Each question is asked several times in
turn with all others, so that none profits from having just been read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from bench.ledger import MARIADB_OPTIONS, timed
from bench.processes import Cores
from bench.report import FOLDER, describe_machine, processor
from billing import latency_rollups
from billing.latency import CallTimes, bucket_of
from billing.latency_rollups import LatencyKind, LatencyPlace
from billing.reports.latency import Last, LatencyBy, Span, read_keys_health, read_latency
from billing.reports.shares import read_shares
from billing.reports.shares_asked import By, Metric, SharesAsked
from config.settings import Config
from db import Database, Transaction, database_url
from storage.many_rows import insert_rows
from tables import caller_rollups, usage_rollups
from tests.support.mariadb import DatabaseServer

DAYS, CALLS_A_DAY, HOURLY_DAYS = 90, 111_000, 3
USERS, KEYS, MODELS, POOL_KEYS = 1000, 2000, 40, 5
ONE_HOUR, ONE_DAY = timedelta(hours=1), timedelta(days=1)
SHOWN_KEYS = 20  # on a page of the pool

Figures = dict[str, Any]


class Filling:
    """The sums of all that time, made of random calls."""

    def __init__(self, until: datetime) -> None:
        self._dice = random.Random(7)
        self._until = until

    def fill(self, db: Database, tell: Callable[[str], None]) -> None:
        """Insert them, day by day."""
        for ago in range(DAYS):
            day = self._until - (ago + 1) * ONE_DAY
            starts = [("d", day, CALLS_A_DAY)]
            if ago < HOURLY_DAYS:
                starts += [("h", day + hour * ONE_HOUR, CALLS_A_DAY // 24) for hour in range(24)]
            for period, start, calls in starts:
                db.transact(lambda tx, p=period, s=start, c=calls, a=ago: self._insert(tx, p, s, c, a))
            tell(f"day {ago + 1} of {DAYS}")

    def _insert(self, tx: Transaction, period: str, start: datetime, calls: int, ago: int) -> None:
        pool_keys = [1 + POOL_KEYS * ago + number for number in range(POOL_KEYS)]
        models = [f"vendor-{number % 8}/model-{number}" for number in range(MODELS)]
        sums = [calls // MODELS // POOL_KEYS, 1, 4000 * calls // MODELS, 900 * calls // MODELS, 10**6 * calls, 0]
        names = [column.name for column in usage_rollups.c]
        rows = [(period, 0, start, 0, key, model, *sums) for key in pool_keys for model in models]
        insert_rows(tx, usage_rollups, [dict(zip(names, row, strict=True)) for row in rows])
        names = [column.name for column in caller_rollups.c]
        callers = [("u", USERS), ("k", KEYS)]
        rows = [
            (period, kind, start, number, 1 + calls // count, 1, number * 100, number * 9, number * 10**6, 0)
            for kind, count in callers
            for number in range(1, count + 1)
        ]
        insert_rows(tx, caller_rollups, [dict(zip(names, row, strict=True)) for row in rows])
        latency_rollups.add(tx, dict(self._times(period, start, calls, pool_keys, models)))

    def _times(
        self, period: str, start: datetime, calls: int, pool_keys: list[int], models: list[str]
    ) -> Iterator[tuple[LatencyPlace, CallTimes]]:
        subjects: list[tuple[LatencyKind, list[str]]] = [
            (LatencyKind.ALL, [""]),
            (LatencyKind.UPSTREAM, ["0"]),
            (LatencyKind.POOL_KEY, list(map(str, pool_keys))),
            (LatencyKind.MODEL, models),
        ]
        if period == "d":
            subjects += [
                (LatencyKind.USER, [str(number) for number in range(1, USERS + 1)]),
                (LatencyKind.KEY, [str(number) for number in range(1, KEYS + 1)]),
            ]
        for kind, several in subjects:
            for subject in several:
                yield LatencyPlace(period, kind, start, subject), self._some(calls // len(several))

    def _some(self, calls: int) -> CallTimes:
        sums = CallTimes(calls, calls // 50, calls * 450, calls * 5000)
        seen = min(calls, 200)  # more would fall into the same buckets
        for _ in range(seen):
            first_byte_ms = 600 * self._dice.lognormvariate(0, 0.7)
            sums.counts[f"f/{bucket_of(first_byte_ms)}"] += calls // seen
            sums.counts[f"w/{bucket_of(first_byte_ms + 5000 * self._dice.lognormvariate(0, 0.9))}"] += calls // seen
        for kind in ("rate_limit_exceeded", "overloaded", "timeout"):
            sums.counts[f"e/{kind}"] += calls // 150
        return sums


def questions(db: Database, now: datetime) -> Iterator[tuple[str, Callable[[], Any]]]:
    """All that the pages can be asked for, by its name."""
    for by in LatencyBy:
        for last in Last:
            span = Span.of(last, now)
            yield f"latency by {by}, last {last}", lambda by=by, span=span: read_latency(db, by, span).to_dict()
    newest = range(1, 1 + SHOWN_KEYS)
    yield "the pool's page", lambda: [one.to_dict() for one in read_keys_health(db, newest, now).values()]
    midnight = now.replace(hour=0) + ONE_DAY
    for by in By:
        for metric in (Metric.COST, Metric.P95):
            for days in (1, 30):
                asked = SharesAsked(by, metric, midnight - days * ONE_DAY, midnight)
                name = f"{metric} by {by}, {days} {'day' if days == 1 else 'days'}"
                yield name, lambda asked=asked: read_shares(db, asked).to_dict()


def measure(kind: str, folder: Path, turns: int) -> Figures:
    """p50 and longest time of each question on one kind of database."""
    server = DatabaseServer(folder, *MARIADB_OPTIONS, "--innodb-buffer-pool-size=1G") if kind == "mariadb" else None
    url = server.new_database() if server else f"sqlite:///{folder}/sums.db"
    db = Database(database_url(Config(database_url=url)))
    now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - ONE_HOUR
    try:
        db.upgrade()
        Filling(now + ONE_HOUR).fill(db, lambda text: print(f"\r{kind}: {text}  ", end="", file=sys.stderr))
        if server:
            db.transact(lambda tx: tx.execute(sa.text("ANALYZE TABLE usage_rollups, caller_rollups, latency_rollups")))
        asked = dict(questions(db, now))
        times: dict[str, list[float]] = {name: [] for name in asked}
        cpu: dict[str, float] = dict.fromkeys(asked, 0.0)
        for _ in range(turns):
            for name, work in asked.items():
                begun = time.process_time()
                times[name].append(timed(work))
                cpu[name] += (time.process_time() - begun) * 1000 / turns
    finally:
        print(file=sys.stderr)
        db.close()
        if server:
            server.stop()
    reads = [
        {"name": name, "p50_ms": statistics.median(found), "max_ms": max(found), "cpu_ms": cpu[name]}
        for name, found in times.items()
    ]
    return {"database": kind, "reads": reads}


COLUMNS = ["question", "p50 ms", "slowest ms", "own CPU ms"]


def lines(found: Figures) -> list[list[str]]:
    """The rows of the table of one database."""
    return [[one["name"], *(f"{one[name]:.1f}" for name in ("p50_ms", "max_ms", "cpu_ms"))] for one in found["reads"]]


def markdown(results: list[Figures], machine: dict[str, str]) -> str:
    """The tables for people."""
    text = "# Sums of ten million calls\n\n" + "\n".join(f"* {name}: {value}" for name, value in machine.items()) + "\n"
    for found in results:
        rows = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *lines(found)]
        text += f"\n## {found['database']}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return text


def main() -> None:
    """Measure, print, and write bench/results/sums.json and sums.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", choices=["mariadb", "sqlite"], action="append")
    parser.add_argument("--turns", type=int, default=15, help="how often each question is asked")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    options = parser.parse_args()
    results = []
    for kind in options.database or ["mariadb", "sqlite"]:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(kind, Path(folder), options.turns))
    machine = describe_machine(Cores.choose()) | {"cores": f"{os.cpu_count()} {processor()}"}
    for found in results:
        table = Table(*COLUMNS, title=found["database"])
        for row in lines(found):
            table.add_row(*row)
        Console().print(table)
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "sums.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    (options.folder / "sums.md").write_text(markdown(results, machine))


if __name__ == "__main__":
    main()
