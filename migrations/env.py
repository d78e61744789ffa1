"""Runs the migrations on the connection that db.Database.upgrade() hands over, and says in the log how far they are."""

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo

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
