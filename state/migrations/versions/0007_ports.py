"""Ports of pods that are open to others."""

from state.migrations import parts

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the parts of this step."""
    parts.run("0007_ports.sql")


def downgrade() -> None:
    """Refused: going back would lose what was written since."""
    raise NotImplementedError("restore a backup of the database that was made before this step instead")
