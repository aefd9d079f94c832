"""The first schema: tables, rules (triggers), and what people see (views, role, grants)."""

from pathlib import Path
from typing import Any

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PARTS = ("0001_tables.sql", "0001_rules.sql", "0001_people.sql")


def upgrade() -> None:
    """Run the parts as they are, in the migration's transaction."""
    connection: Any = op.get_bind().connection.driver_connection
    for part in PARTS:
        connection.execute((Path(__file__).parents[1] / "sql" / part).read_text())


def downgrade() -> None:
    """Refused: there is nothing before the first schema."""
    raise NotImplementedError("there is no schema before 0001: restore a backup of the database instead")
