"""Where Alembic starts. The connection comes from state.migrate; there is no offline mode."""

from alembic import context

from state import tables

METADATA = tables.PodRow.metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
