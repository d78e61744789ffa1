"""What operators call people: the label that they gave an account, else the display name that its owner shares.

It stands beside a number and never in its place, because two accounts may be called the same. A shared name is in
quotation marks: whoever chooses their own name can't pass for an account that operators have labelled.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from db import Database, Transaction
from tables import users as table

MAX_CHARACTERS = 100
# Printable by Unicode, yet blank: a joiner of marks, the fillers of Hangul, the empty cell of Braille.
UNSEEN = re.compile("[\u034f\u115f\u1160\u2800\u3164\uffa0]")
COLUMNS = table.c.label, table.c.display_name, table.c.shares_name


def check_printable(text: str, most: int = MAX_CHARACTERS) -> str:
    """The text, if all of it can be seen: no marks either that turn the direction around them. Raises ValueError."""
    if not text.isprintable() or UNSEEN.search(text) or text != text.strip() or not 0 < len(text) <= most:
        raise ValueError(f"must be 1 to {most} printable characters without space at their begin and end")
    return text


def shown_label(label: str | None, display_name: str | None, shares_name: bool) -> str | None:
    """What operators call somebody; None if nobody has said."""
    return label or (f"“{display_name}”" if shares_name and display_name else None)


def labels_of(tx: Transaction, user_ids: Collection[int]) -> dict[int, str]:
    """The labels of those of these accounts that have one."""
    if not user_ids:
        return {}
    rows = tx.execute(sa.select(table.c.id, *COLUMNS).where(table.c.id.in_(sorted(user_ids))))
    found = {row.id: shown_label(row.label, row.display_name, row.shares_name) for row in rows}
    return {user_id: label for user_id, label in found.items() if label}


def with_labels(db: Database, rows: Iterable[Mapping[str, Any]], **columns: str) -> list[dict[str, Any]]:
    """Rows with the labels of the people whom they name, as `user_label="user_id"` puts one beside the column user_id.

    Such a column holds a number, `user/<number>`, or whatever names nobody.
    """
    numbered = [(dict(row), {new: _number(row[column]) for new, column in columns.items()}) for row in rows]
    with db.reading() as tx:
        labels = labels_of(tx, {number for _, numbers in numbered for number in numbers.values() if number})
    return [row | {new: labels.get(number or 0) for new, number in numbers.items()} for row, numbers in numbered]


def called(user_id: object, label: str | None) -> str | None:
    """Somebody in one cell of a table: `17 marketing`."""
    return None if user_id is None else f"{user_id} {label or ''}".strip()


def _number(value: object) -> int | None:
    if isinstance(value, int):
        return value
    kind, _, number = str(value).partition("/")
    return int(number) if kind == "user" and number.isdecimal() and len(number) < 19 else None
