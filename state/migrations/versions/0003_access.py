"""Revoked sessions, users and keys."""

from state.migrations import parts

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the parts of this step."""
    parts.run("0003_access.sql")


def downgrade() -> None:
    """Refused: going back would lose what was written since."""
    raise NotImplementedError("restore a backup of the database that was made before this step instead")
