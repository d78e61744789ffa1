"""How a database goes about the queries of some work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from db import Database


def plans(db: Database, work: Callable[..., Any], *arguments: Any) -> list[tuple[str, list[Any]]]:
    """The ledger's and roll-ups' queries of some work, with how the database goes about each."""
    asked: list[tuple[str, Any]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        asked.append((statement, parameters))

    sa.event.listen(db._engine, "before_cursor_execute", note)
    work(*arguments)
    sa.event.remove(db._engine, "before_cursor_execute", note)
    explain = "EXPLAIN " if db.kind == "mysql" else "EXPLAIN QUERY PLAN "
    found = []
    with db.reading() as tx:
        for statement, parameters in asked:
            if statement.startswith("SELECT") and "usage_" in statement:
                found.append((statement, tx.exec_driver_sql(explain + statement, parameters).mappings().all()))
    return found
