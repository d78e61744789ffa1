"""Types of columns: times come back aware and in UTC, texts of ASCII keep their case, on either kind of database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite

from foundation.column_types import Id, UtcDateTime, ascii_text

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize("moment", [NOON, NOON.astimezone(timezone(timedelta(hours=8))), None])
def test_a_time_is_stored_in_utc_and_comes_back_aware_to_the_microsecond(moment):
    table = sa.Table("t", sa.MetaData(), sa.Column("at", UtcDateTime))
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert().values(at=moment))
        found = connection.scalar(sa.select(table.c.at))
        assert found == moment
        assert found is None or found.tzinfo is UTC
        text = connection.scalar(sa.text("SELECT at FROM t"))
        assert text is None or text == "2026-11-21 12:00:00.123456"
    engine.dispose()


@pytest.mark.parametrize(
    ("column_type", "on_mysql", "on_sqlite"),
    [
        (UtcDateTime(), "DATETIME(6)", "DATETIME"),
        (Id, "BIGINT", "INTEGER"),
        (ascii_text(64), "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin", "VARCHAR(64)"),
    ],
)
def test_each_type_is_what_the_database_needs(column_type, on_mysql, on_sqlite):
    assert column_type.compile(mysql.dialect()) == on_mysql
    assert column_type.compile(sqlite.dialect()) == on_sqlite
