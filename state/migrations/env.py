"""Where Alembic starts. The connection comes from state.migrate; there is no offline mode."""

from alembic import context

from state import chore_tables, port_tables, presence_tables, program_tables, revocation_tables, tables

# Each module declares its tables in the one metadata when it is imported.
TABLES = (tables, chore_tables, port_tables, presence_tables, program_tables, revocation_tables)
METADATA = tables.PodRow.metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
