"""Many rows in few statements, on every engine."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

ROWS_AT_ONCE = 1000  # some 500 kB of statement, of the 16 MB or more that a server takes
AS_IS = frozenset({int, str, type(None)})
PLAIN_TEXT = re.compile(r"[A-Za-z0-9 ._:/@+-]*")


def insert_rows(tx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many rows, each with a value for every column. Raises Duplicate."""
    upsert_rows(tx, table, rows)


def upsert_rows(
    tx: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    adding: Collection[str] = (),
    setting: Collection[str] = (),
) -> None:
    """Insert many rows, each with a value for every column, in few statements.

    adding, setting: columns that a row that is there already adds up, or takes over; with neither it raises Duplicate.
    On MySQL the values are written into the statement: with a parameter for each, the pure Python driver takes ten
    times as long as the server, and JSON_TABLE is not known to every server that speaks MySQL.
    """
    names = table.c.keys()
    values_of = itemgetter(*names)
    into = f"INSERT INTO {table.name} ({', '.join(f'`{name}`' for name in names)}) VALUES "  # noqa: S608 - our names
    if tx.dialect.name == "sqlite":  # its driver takes them as they are, which is what SQLAlchemy would make of them
        changes = [f"`{name}` = {table.name}.`{name}` + excluded.`{name}`" for name in adding]
        changes += [f"`{name}` = excluded.`{name}`" for name in setting]
        clash = f" ON CONFLICT DO UPDATE SET {', '.join(changes)}" if changes else ""
        marks = f"({', '.join('?' * len(names))})"
        if rows:
            tx.exec_driver_sql(into + marks + clash, [tuple(map(_plain, values_of(row))) for row in rows])
        return
    changes = [f"`{name}` = {table.name}.`{name}` + VALUES(`{name}`)" for name in adding]
    changes += [f"`{name}` = VALUES(`{name}`)" for name in setting]
    clash = f" ON DUPLICATE KEY UPDATE {', '.join(changes)}" if changes else ""
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[begin : begin + ROWS_AT_ONCE]
        values = ", ".join(f"({', '.join(map(_literal, values_of(row)))})" for row in some)
        tx.exec_driver_sql(into + values + clash)


def _plain(value: Any) -> Any:
    if type(value) in AS_IS:  # most are: a batch of a thousand calls has forty thousand values
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    if isinstance(value, date):
        return value.isoformat()
    return int(value) if isinstance(value, bool) else value


def _literal(value: Any) -> str:
    """A value as MySQL reads it. Text that is not plain goes in hexadecimal, whatever sql_mode says of quotes."""
    if type(value) is int:
        return str(value)
    value = _plain(value)
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return f"'{value}'" if PLAIN_TEXT.fullmatch(value) else f"_utf8mb4 X'{value.encode().hex()}'"
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"no column holds a {type(value).__name__}")
