"""Runs the migrations on the connection that db.Database.upgrade() hands over."""

from alembic import context

from tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    # MySQL commits each DDL statement by itself: many small migrations, each recorded as it is done.
    transaction_per_migration=connection.dialect.name != "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
