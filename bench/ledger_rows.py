"""A ledger of millions of requests with its roll-ups, made by the database itself: 90 days, 1,000 users, 40 models."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAYS = 90
DAY_MS = 86_400_000
ROWS_AT_ONCE = 100_000
POPULAR_MODEL, RARE_MODEL = "openai/gpt-4o-mini", "rare/model"
BIG_USER, SMALL_USER = 1, 500  # a tenth of all requests, and a thousandth

Execute = Callable[[str], object]

# n is the number of the row; h a number that looks random and is the same in both databases.
COLUMNS = {
    "request_id": "",
    "attempt": "1",
    "process_id": "'0123456789abcdef0123456789abcdef'",
    "user_id": "CASE WHEN h % 10 = 0 THEN 1 ELSE 2 + h % 997 END",
    "client_key_id": "CASE WHEN h % 3 = 0 THEN NULL ELSE h % 3 END",
    "pool_key_id": "1 + 5 * (ms / 86400000 % 1000) + h % 5",
    "model": f"CASE WHEN n % 100000 = 77 THEN '{RARE_MODEL}' WHEN h % 7 < 2 THEN '{POPULAR_MODEL}' "
    "ELSE CONCAT('vendor/model-', h % 38) END",
    "is_stream": "h % 2",
    "state": "'settled'",
    "source": "'stream'",
    "reserved_nano": "h % 100000000",
    "estimate_nano": "h % 10000000",
    "cost_nano": "h % 5000000",
    "generation_id": "",
    "prompt_tokens": "h % 4000",
    "completion_tokens": "h % 900",
    "is_last": "1",
    "http_status": "CASE WHEN h % 53 = 0 THEN 502 ELSE 200 END",
    "outcome": "CASE WHEN h % 53 = 0 THEN 'error' ELSE 'complete' END",
    "first_byte_ms": "300 + h % 500",
    "total_ms": "900 + h % 9000",
    "created_at": "",
    "settled_at": "",
    "checks": "0",
}
MARIADB = {
    "request_id": "LOWER(CONCAT(LPAD(HEX(ms), 12, '0'), LPAD(HEX(n), 20, '0')))",
    "generation_id": "CONCAT('gen-1763700000-', LPAD(n, 20, '0'))",
    "created_at": "FROM_UNIXTIME(ms DIV 1000) + INTERVAL ms % 1000 * 1000 MICROSECOND",
    "settled_at": "FROM_UNIXTIME(ms DIV 1000)",
    "pool_key_id": "1 + 5 * (ms DIV 86400000 % 1000) + h % 5",
}
SQLITE = {
    "request_id": "printf('%012x%020x', ms, n)",
    "generation_id": "printf('gen-1763700000-%020d', n)",
    "created_at": "strftime('%Y-%m-%d %H:%M:%S.', ms / 1000, 'unixepoch') || printf('%03d000', ms % 1000)",
    "settled_at": "strftime('%Y-%m-%d %H:%M:%S.000000', ms / 1000, 'unixepoch')",
    "model": COLUMNS["model"].replace("CONCAT('vendor/model-', h % 38)", "'vendor/model-' || h % 38"),
}


@dataclass(frozen=True)
class Filling:
    """So many rows, evenly over the DAYS before a midnight."""

    kind: str
    rows: int
    until: datetime

    def fill(self, execute: Execute, tell: Callable[[str], None]) -> None:
        """Insert the rows, then their sums day by day."""
        for begin in range(0, self.rows, ROWS_AT_ONCE):
            execute(self._insert(begin, min(begin + ROWS_AT_ONCE, self.rows)))
            tell(f"rows {begin + ROWS_AT_ONCE:,}")
        first = self._first_ms() // DAY_MS
        for day in range(first, first + DAYS):
            for period in "hd":
                for everybody in (False, True):
                    execute(self._sums(period, everybody, day * DAY_MS))
                for kind, subject in (("u", "user_id"), ("k", "client_key_id")):
                    execute(_sums_of_callers(period, kind, subject, day))
            tell(f"sums of day {day - first + 1}")

    def _first_ms(self) -> int:
        return int((self.until - timedelta(days=DAYS)).timestamp() * 1000)

    def _insert(self, begin: int, end: int) -> str:
        columns = COLUMNS | (MARIADB if self.kind == "mysql" else SQLITE)
        step = DAYS * DAY_MS / self.rows
        ms = f"{self._first_ms()} + CAST(n * {step:.9f} AS {'SIGNED' if self.kind == 'mysql' else 'INTEGER'})"
        if self.kind == "mysql":
            numbers = f"SELECT seq AS n FROM seq_{begin}_to_{end - 1}"
        else:
            more = f"SELECT n + 1 FROM s WHERE n < {end - 1}"
            numbers = f"WITH RECURSIVE s(n) AS (SELECT {begin} UNION ALL {more}) SELECT n FROM s"
        # Knuth's multiplier spreads neighbours over all values.
        spread = f"SELECT n, n * 2654435761 % 4294967296 AS h, {ms} AS ms FROM ({numbers}) AS numbers"
        return (
            f"INSERT INTO usage_ledger ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM ({spread}) AS x"
        )

    def _sums(self, period: str, everybody: bool, day_ms: int) -> str:
        form = f"%Y-%m-%d {'%H' if period == 'h' else '00'}:00:00.000000"
        start = f"DATE_FORMAT(created_at, '{form}')" if self.kind == "mysql" else f"strftime('{form}', created_at)"
        user, client = ("0", "0") if everybody else ("user_id", "COALESCE(client_key_id, 0)")
        keys = f"'{period}', {user}, {start}, {client}, pool_key_id, model"
        sums = "COUNT(*), SUM(outcome = 'error'), SUM(prompt_tokens), SUM(completion_tokens), SUM(cost_nano), 0"
        low, high = f"{day_ms:012x}", f"{day_ms + DAY_MS:012x}"
        within = f"request_id >= '{low}' AND request_id < '{high}'"
        return (
            f"INSERT INTO usage_rollups SELECT {keys}, {sums} FROM usage_ledger WHERE {within} GROUP BY 2, 3, 4, 5, 6"
        )


def _sums_of_callers(period: str, kind: str, subject: str, day: int) -> str:
    begin = datetime.fromtimestamp(day * DAY_MS // 1000, UTC)
    sums = ", ".join(f"SUM(`{name}`)" for name in ("requests", "errors", "prompt_tokens", "completion_tokens"))
    within = f"start >= '{begin:%Y-%m-%d}' AND start < '{begin + timedelta(days=1):%Y-%m-%d}'"
    return (
        f"INSERT INTO caller_rollups SELECT period, '{kind}', start, {subject}, {sums}, SUM(cost_nano), 0 "
        f"FROM usage_rollups WHERE period = '{period}' AND user_id > 0 AND {within} GROUP BY period, start, {subject}"
    )


def sqlite_execute(path: str) -> Execute:
    """Statements for SQLite, faster than it is safe."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=OFF", "cache_size=-500000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection.execute
