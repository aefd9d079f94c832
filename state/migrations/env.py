"""Where Alembic starts. The connection comes from state.migrate; there is no offline mode."""

from alembic import context
from sqlmodel import SQLModel

from state import tables

if not tables.SQLModel.metadata.tables:  # importing the tables is what fills the metadata
    raise RuntimeError("state.tables defines no tables")

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
