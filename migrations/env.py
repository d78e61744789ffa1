"""Runs the migrations on the connection that db.Database.upgrade() hands over, and says in the log how far they are.

MySQL and MariaDB commit each change of the schema by itself, so an upgrade that is killed leaves a migration half done
and not recorded. Begun again, it passes over what is there: that is so for every operation, and no matter of each
migration. What one does by `op.execute` after a change of the schema must do no harm when it is done twice.
"""

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.ddl import base
from alembic.ddl.mysql import MySQLImpl
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import schema

from foundation.logs import event
from tables import metadata

log = logging.getLogger("migrations")


class Progress:
    """Lines for a database that has been in use, whose migrations may take long; a new one is made in silence."""

    def __init__(self) -> None:
        found = context.get_context().get_current_revision()
        wanted = str(context.get_revision_argument())
        newest_first = [one.revision for one in context.script.walk_revisions("base", wanted)]
        self._steps = newest_first.index(found) if found in newest_first else 0  # 0 too if a newer version's is found
        self._done = 0
        self._begun = time.monotonic()
        if self._steps:
            event(log, "migrating", found=found, wanted=wanted, steps=self._steps)

    def step_is_done(self, schema: str | None) -> None:
        self._done += 1
        if self._steps:
            seconds = round(time.monotonic() - self._begun, 1)
            event(log, "migrated", schema=schema, step=self._done, of=self._steps, seconds=seconds)
        self._begun = time.monotonic()


def say_how_far(
    ctx: MigrationContext,  # noqa: ARG001 - Alembic gives all four by name
    step: MigrationInfo,
    heads: Collection[Any],  # noqa: ARG001
    run_args: Mapping[str, Any],  # noqa: ARG001
) -> None:
    progress.step_is_done(step.up_revision_id)


class Repeatable(MySQLImpl):
    """Alembic's operations on MySQL and MariaDB; takes the place of its own by its dialect's name."""

    __dialect__ = "mysql"

    def _exec(self, construct: Any, *args: Any, **kwargs: Any) -> Any:
        return None if _is_done(construct) else super()._exec(construct, *args, **kwargs)

    def bulk_insert(self, table: Any, rows: list[dict[str, Any]], multiinsert: bool = True) -> None:
        """Insert those rows that are not there, by the primary key."""
        key = sa.inspect(connection).get_pk_constraint(table.name)["constrained_columns"]
        known = set(map(tuple, connection.execute(sa.select(*(table.c[name] for name in key)))))
        super().bulk_insert(table, [row for row in rows if tuple(row[name] for name in key) not in known], multiinsert)


def _is_done(construct: Any) -> bool:
    """True for a change of the schema that an upgrade before this one has made."""
    there = sa.inspect(connection)
    match construct:
        case schema.CreateTable() | schema.DropTable():
            is_there = there.has_table(construct.element.name)
        case schema.CreateIndex() | schema.DropIndex():
            table: Any = construct.element.table
            is_there = construct.element.name in _names(there.get_indexes(table.name))
        case base.AddColumn() | base.DropColumn():
            is_there = construct.column.name in _names(there.get_columns(construct.table_name))
        case _:
            return False
    return bool(is_there) != isinstance(construct, schema.DropTable | schema.DropIndex | base.DropColumn)


def _names(found: list[Any]) -> set[str]:
    return {one["name"] for one in found}


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    # MySQL commits each DDL statement by itself: many small migrations, each recorded as it is done.
    transaction_per_migration=connection.dialect.name != "sqlite",
    on_version_apply=say_how_far,
)
progress = Progress()
with context.begin_transaction():
    context.run_migrations()
