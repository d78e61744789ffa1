"""Types of columns: what SQLite, MySQL and MariaDB have to keep alike."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime, stored with microseconds and without zone."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else sa.DateTime())

    def process_bind_param(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        # Nearly all are in UTC, and to convert these to it would be a third of an insert's time.
        return (value if value.tzinfo is UTC else value.astimezone(UTC)).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


# SQLite numbers rows by itself only in a column of type INTEGER.
Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def ascii_text(length: int) -> sa.types.TypeEngine[str]:
    """A text of ASCII, of so many characters at the most, compared byte by byte as hashes, ids and states must be.

    The tables' collation would ignore case.
    """
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql")
