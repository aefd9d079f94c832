"""Admins see every table, whenever their role comes to be."""

from state.migrations import parts

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the parts of this step."""
    parts.run("0008_desk.sql")


def downgrade() -> None:
    """Refused: going back would lose what was written since."""
    raise NotImplementedError("restore a backup of the database that was made before this step instead")
