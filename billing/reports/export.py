"""The request log as a file: CSV for spreadsheets, JSON lines for programs. Written piece by piece, oldest first."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

import orjson

from billing.reports.log_items import LogItem, columns

MIMETYPES = {"csv": "text/csv", "jsonl": "application/jsonl"}
# A cell that begins like this is a formula to a spreadsheet, which runs it.
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")


def headers(name: str, what: str = "request-log") -> dict[str, str]:
    """The headers of an answer that holds the file."""
    return {"Content-Type": MIMETYPES[name], "Content-Disposition": f'attachment; filename="{what}.{name}"'}


def lines(lists: Iterable[list[LogItem]], name: str, for_operator: bool = False) -> Iterator[bytes]:
    """The file's content, a piece for each list. The first line of a CSV names its columns, even if nothing follows."""
    if name == "csv":
        yield csv_lines([columns(for_operator)])
    for items in lists:
        documents = [item.to_dict(for_operator) for item in items]
        if name == "csv":
            yield csv_lines(document.values() for document in documents)
        else:
            yield b"".join(orjson.dumps(document) + b"\n" for document in documents)


def csv_lines(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as spreadsheets read them."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    """A text that a spreadsheet would run gets an apostrophe in front, and is shown as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_BEGINS) else value
