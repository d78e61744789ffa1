"""Sums of the ledger by hour and by day: what statistics and page numbers are computed from instead of its rows.

Written in the transaction that changes the ledger, so that the sums are always those of its rows; they stay when old
rows are deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from db import Transaction
from tables import usage_rollups as table

HOUR, DAY = "h", "d"
EVERYBODY = 0  # the user_id of the rows that add up all users
NONE = 0  # a client_key_id or pool_key_id of no key: a primary key holds no NULL
ROWS_AT_ONCE = 5000  # some 600 kB of JSON, of the 16 MB or more that a server takes


class Bucket(NamedTuple):
    """What one change of a ledger row is counted under. created_at: the row's, aware.

    pool_key_id: who carried the call: a pool key; another upstream as its number below zero; None for nobody. So one
    column tells them apart, and sums of pool keys need no second one to leave out the rest.
    """

    user_id: int
    client_key_id: int | None
    pool_key_id: int | None
    model: str
    created_at: datetime


def bucket_of(row: Mapping[str, Any]) -> Bucket:
    """What a row of the ledger is counted under."""
    upstream_id = row["upstream_id"]
    carrier = row["pool_key_id"] if upstream_id is None else -upstream_id
    return Bucket(row["user_id"], row["client_key_id"], carrier, row["model"], row["created_at"])


@dataclass(slots=True)
class UsageSums:
    """What is added up; negative amounts take back."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano: int = 0
    unknown: int = 0

    def __add__(self, other: UsageSums) -> UsageSums:
        return UsageSums(
            self.requests + other.requests,
            self.errors + other.errors,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_nano + other.cost_nano,
            self.unknown + other.unknown,
        )

    def amounts(self) -> tuple[int, ...]:
        """The amounts in the order of the fields. (dataclasses.astuple copies deeply, at 20 times the cost.)"""
        return (
            self.requests,
            self.errors,
            self.prompt_tokens,
            self.completion_tokens,
            self.cost_nano,
            self.unknown,
        )


def add(tx: Transaction, changes: Mapping[Bucket, UsageSums]) -> None:
    """Add these changes to the sums of their hours and days, each person's own and everybody's."""
    summed: dict[tuple[str, int, str, int, int, str], UsageSums] = {}
    for (user_id, client_key_id, pool_key_id, model, created_at), sums in changes.items():
        pool_id, hour = pool_key_id or NONE, _hour(created_at)
        for period, start in ((HOUR, hour), (DAY, hour[:11] + "00:00:00.000000")):
            for row in (
                (period, user_id, start, client_key_id or NONE, pool_id, model),
                (period, EVERYBODY, start, NONE, pool_id, model),
            ):
                before = summed.get(row)
                summed[row] = sums if before is None else before + sums
    # In one order everywhere: two transactions that touch the same rows wait for each other, and don't deadlock.
    rows = [(*row, *sums.amounts()) for row, sums in sorted(summed.items()) if any(sums.amounts())]
    statement = _STATEMENTS[tx.dialect.name]
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        tx.execute(statement, {"rows": orjson.dumps(rows[begin : begin + ROWS_AT_ONCE]).decode()})


def _hour(time: datetime) -> str:
    """The beginning of its hour, as SQLite stores times; MySQL reads it too."""
    hour = time.astimezone(UTC).replace(minute=0, second=0, microsecond=0, tzinfo=None)
    return hour.isoformat(" ", "microseconds")


# All rows travel as one parameter: with one for each value, the pure Python driver takes longer to write the statement
# than the server takes to run it (50 ms instead of 15 for 2,000 rows).
_COLUMNS = [column.name for column in table.columns]
_SUMS = [field.name for field in fields(UsageSums)]
_TEXTS = {"period", "start", "model"}
_FIELDS = ", ".join(
    f"{name} {'VARCHAR(255)' if name in _TEXTS else 'BIGINT'} PATH '$[{place}]'" for place, name in enumerate(_COLUMNS)
)
_INTO = ["INSERT INTO", table.name, "(", ", ".join(_COLUMNS), ") SELECT"]
_UPSERTS = {
    "mysql": [
        *_INTO,
        ", ".join(f"new.{name}" for name in _COLUMNS),
        f"FROM JSON_TABLE(:rows, '$[*]' COLUMNS ({_FIELDS})) AS new ON DUPLICATE KEY UPDATE",
        ", ".join(f"{name} = {table.name}.{name} + new.{name}" for name in _SUMS),
    ],
    "sqlite": [
        *_INTO,
        ", ".join(f"value->>{place}" for place in range(len(_COLUMNS))),
        "FROM json_each(:rows) WHERE true ON CONFLICT DO UPDATE SET",
        ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in _SUMS),
    ],
}
_STATEMENTS = {kind: sa.text(" ".join(words)) for kind, words in _UPSERTS.items()}
