"""The first schema: tables, rules (triggers), and what people see (views, role, grants)."""

from state.migrations import parts

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make everything."""
    parts.run("0001_tables.sql", "0001_rules.sql", "0001_people.sql")


def downgrade() -> None:
    """Refused: there is nothing before the first schema."""
    raise NotImplementedError("there is no schema before 0001: restore a backup of the database instead")
