"""What every table is made of: one engine, one character set, and columns of one kind written in one line."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()


def table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    """A table of ours."""
    return sa.Table(
        name,
        metadata,
        *items,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_unicode_ci",
    )


def integers(*names: str, nullable: bool = True) -> list[sa.Column[int]]:
    """Columns of whole numbers of 64 bits."""
    return [sa.Column(name, sa.BigInteger, nullable=nullable) for name in names]
