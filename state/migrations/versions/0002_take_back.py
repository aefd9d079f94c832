"""Actions that were taken back wait for their node's word."""

from state.migrations import parts

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the parts of this step."""
    parts.run("0002_take_back.sql")


def downgrade() -> None:
    """Refused: going back would lose what was written since."""
    raise NotImplementedError("restore a backup of the database that was made before this step instead")
