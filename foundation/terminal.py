"""What operators' programs print: tables for people, JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import orjson


def show(
    rows: Iterable[Mapping[str, object]], title: str, empty: str = "nothing yet", as_table: bool | None = None
) -> None:
    """Print rows: a table on a terminal, JSON lines otherwise; or as as_table says. empty: a table without rows."""
    rows = list(rows)
    if not (sys.stdout.isatty() if as_table is None else as_table):
        for row in rows:
            sys.stdout.write(orjson.dumps(row, default=str).decode() + "\n")
        return
    from rich.console import Console  # for people: it takes longer to load than a command to run
    from rich.table import Table
    from rich.text import Text

    table = Table(*(rows[0] if rows else [empty]), title=title)
    for row in rows:
        # Text, because rich would take brackets in a name for its markup.
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    Console().print(table)
