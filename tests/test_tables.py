"""The conventions of columns: what a name promises, its type keeps."""

import sqlalchemy as sa

from foundation.column_types import UtcDateTime
from tables import metadata

COLUMNS = [column for table in metadata.sorted_tables for column in table.columns]


def test_money_is_whole_nano_dollars():
    money = [column for column in COLUMNS if column.name.endswith("nano")]
    assert len(money) >= 15
    assert [column.name for column in money if not isinstance(column.type, sa.BigInteger)] == []


def test_times_are_utc():
    times = [column for column in COLUMNS if column.name.endswith("_at") or isinstance(column.type, sa.DateTime)]
    assert [column.name for column in times if not isinstance(column.type, UtcDateTime)] == []


def test_no_column_is_a_float():
    assert [column.name for column in COLUMNS if isinstance(column.type, sa.Float | sa.Numeric)] == []
