"""All tables as one stream of plain items, and back into the tables of any engine. A new table needs nothing here.

    {"backup": 1, "schema": ...}, other items, {"table": name, "columns": [...]}, {"rows": [...]}, ..., {"end": rows}

The tables are read as they were in one moment, while others write; they are filled in one transaction, so that a
database is restored whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from db import SCHEMA_VERSION, Database, Transaction, utc_now
from foundation.column_types import UtcDateTime
from storage.many_rows import insert_rows
from tables import gateway_processes, metadata, quota_slices, rotator

ROWS_AT_ONCE = 500
# At OpenRouter, of keys that were made since and that no row knows: docs/rotation.md
HOLD_DELETIONS = timedelta(hours=24)
# What starts and commands write into a database that nobody has used yet.
OF_STARTS = {"revisions", "rotator", "log_retention", "sealed_secrets", "api_keys", "upstreams", "gateway_processes"}
OF_STARTS |= {"invitations", "audit_log"}

Told = Callable[[str, int], None]
"""Called with a table's name and how many of its rows are done."""


class CannotRestore(Exception):
    """Why nothing was restored, in one line."""


def taken(db: Database, about: dict[str, Any], first: Iterable[dict[str, Any]], told: Told) -> Iterator[dict[str, Any]]:
    """Every row of every table as of one moment. Raises DatabaseError.

    about: goes into the first item. first: further items, taken before that moment.
    """
    yield {"backup": 1, "schema": SCHEMA_VERSION, "engine": db.kind} | about
    yield from first
    patient, count = db.another(None), 0
    try:
        with patient.reading(one_moment=True) as tx:
            for table in metadata.sorted_tables:
                yield {"table": table.name, "columns": table.columns.keys()}
                done = 0
                for rows in _pages(tx, table):
                    yield {"rows": rows}
                    done += len(rows)
                    told(table.name, done)
                count += done
    finally:
        patient.close()
    yield {"end": count}


def _pages(tx: Transaction, table: sa.Table) -> Iterator[list[tuple[Any, ...]]]:
    """By the primary key, page by page: not every driver reads a result in pieces."""
    key = list(table.primary_key)
    places = [table.columns.keys().index(column.name) for column in key]
    asked, rows = sa.select(table).order_by(*key).limit(ROWS_AT_ONCE), [()]
    after: sa.ColumnElement[bool] = sa.true()
    while rows:
        rows = [tuple(row) for row in tx.execute(asked.where(after))]
        if rows:
            yield rows
            after = _after(tx, key, [rows[-1][place] for place in places])


def _after(tx: Transaction, key: list[sa.Column[Any]], last: list[Any]) -> sa.ColumnElement[bool]:
    """What comes after a row, in the words by which each server finds it in its index."""
    if tx.dialect.name == "sqlite":
        values = [sa.literal(value, column.type) for column, value in zip(key, last, strict=True)]
        return sa.tuple_(*key) > sa.tuple_(*values)
    same = [column == value for column, value in zip(key, last, strict=True)]
    return sa.or_(*(sa.and_(*same[:n], column > last[n]) for n, column in enumerate(key)))


def is_unused(db: Database) -> bool:
    """True if no table has a row but what a start writes."""
    with db.reading() as tx:
        others = [table for table in metadata.sorted_tables if table.name not in OF_STARTS]
        return not any(tx.scalar(sa.select(sa.literal(1)).select_from(table).limit(1)) for table in others)


def restore(
    db: Database, items: Callable[[], Iterable[dict[str, Any]]], check: Callable[[Transaction], None], told: Told
) -> tuple[int, set[str]]:
    """Put all rows of a backup in the place of what is there.

    items: begins to read the backup, and again after a conflict. check: looks at the database before it is committed.
    Returns how many rows there are, and the gateways' processes that were running when it was taken: what they had
    begun is still open. Raises CannotRestore, DatabaseError.
    """
    ended: set[str] = set()

    def work(tx: Transaction) -> int:
        reading = iter(items())
        first = next(reading)
        if first.get("schema") != SCHEMA_VERSION:
            raise CannotRestore(
                f"the backup has schema {first.get('schema')} and this program {SCHEMA_VERSION}: "
                "restore it with the version that made it, then upgrade"
            )
        for table in reversed(metadata.sorted_tables):
            tx.execute(table.delete())
        count = _fill(tx, reading, told)
        check(tx)
        ended.update(tx.scalars(sa.select(gateway_processes.c.id)), tx.scalars(sa.select(quota_slices.c.process_id)))
        tx.execute(gateway_processes.delete())
        tx.execute(rotator.update().values(deletions_held_until=utc_now(tx) + HOLD_DELETIONS))
        return count

    patient = db.another(None)
    try:
        return patient.transact(work), ended
    finally:
        patient.close()


def _fill(tx: Transaction, items: Iterator[dict[str, Any]], told: Told) -> int:
    count = done = 0
    table, readers = None, []
    for item in items:
        if "table" in item:
            table, done = metadata.tables[item["table"]], 0
            readers = [(name, _reader(table.c[name])) for name in item["columns"]]
        elif "rows" in item:
            assert table is not None  # noqa: S101 - as `taken` writes it
            rows = [
                {name: read(value) for (name, read), value in zip(readers, row, strict=True)} for row in item["rows"]
            ]
            insert_rows(tx, table, rows)
            done += len(rows)
            count += len(rows)
            told(table.name, done)
        elif "end" in item and item["end"] != count:
            raise CannotRestore(f"the backup has {count} rows of {item['end']}")
    return count


def _reader(column: sa.Column[Any]) -> Callable[[Any], Any]:
    """From JSON to what the column holds."""
    if isinstance(column.type, UtcDateTime):
        return lambda value: value and datetime.fromisoformat(value)
    if isinstance(column.type, sa.Date):
        return lambda value: value and date.fromisoformat(value)
    return lambda value: value
