"""Running a migration's SQL parts as they are, in the migration's transaction."""

from pathlib import Path
from typing import Any

from alembic import op

_SQL = Path(__file__).parent / "sql"


def run(*parts: str) -> None:
    """Execute each file of state/migrations/sql, in the order given."""
    connection: Any = op.get_bind().connection.driver_connection
    for part in parts:
        connection.execute((_SQL / part).read_text())
