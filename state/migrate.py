"""Bringing a database to this version's schema: at start-up, by whichever program comes first."""

from pathlib import Path
from typing import Any

import psycopg
import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.errors import Diagnostic
from psycopg.rows import tuple_row
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from state.database import Database, DatabaseUnavailable, is_retryable, session_conninfo

SERVER_VERSION_MIN = 150000
# Any number that nobody else on this server is likely to lock.
ADVISORY_LOCK = 0x0C0DE90D5
LOCK_TIMEOUT_S_MAX = 120

log = structlog.get_logger(__name__)


class WrongDatabase(Exception):
    """The database cannot be used as it is: why, and what to do. Trying again does not help."""


def migrate(url: str) -> None:
    """Bring the schema up to date. Safe to repeat, and from several programs at once.

    Raises `WrongDatabase` where PostgreSQL is older than 15, the schema is newer than this program, or the
    user may not make tables; `DatabaseUnavailable` where it cannot be reached or another migration hangs.
    """
    try:
        with psycopg.connect(session_conninfo(url, "admin")) as connection:
            connection.add_notice_handler(_log_notice)
            _check_server(connection)
            _upgrade_alone(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        raise WrongDatabase(
            f"the database user may not make the tables: {_first_line(error)}. Let it own the database, or "
            "GRANT CREATE ON SCHEMA public and ON DATABASE to it."
        ) from error
    except psycopg.Error as error:
        if is_retryable(error):
            raise DatabaseUnavailable.of(error) from error
        raise


def schema_problem(db: Database) -> str | None:
    """Why this program cannot work with the database's schema; None when it is the one of this version."""
    with db.transaction() as connection:
        row = connection.execute(
            "SELECT to_regclass('public.alembic_version') IS NOT NULL AS made"
        ).fetchone()
        made = row is not None and row["made"]
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall() if made else []
    revision, wanted = (found[0]["version_num"] if found else None), head()
    if revision == wanted:
        return None
    return f"the schema is {revision or 'missing'}, and this version works with {wanted}"


def head() -> str:
    """The newest schema that this program knows."""
    return ScriptDirectory.from_config(script_config()).get_current_head() or ""


def script_config() -> Config:
    """Alembic's configuration: there is no ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def _check_server(connection: psycopg.Connection[Any]) -> None:
    version = connection.info.server_version
    if version < SERVER_VERSION_MIN:
        raise WrongDatabase(
            f"PostgreSQL {version // 10000} is too old: 15 or newer is needed (for views with the invoker's "
            "rights). Upgrade it, or leave out the connection string to use the embedded one."
        )


def _upgrade_alone(connection: psycopg.Connection[Any]) -> None:
    # Held by the session, over the transactions of SQLAlchemy, until the connection is closed.
    connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S_MAX}s'")
    connection.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
    found = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(script_config()).walk_revisions()}
    if found is not None and found not in known:
        raise WrongDatabase(
            f"the database has schema {found}, which is newer than this version of codepods (it knows up to "
            f"{head()}). Start the newer version, or restore a backup made by this one."
        )
    if found != head():
        connection.commit()
        _run_alembic(connection)
        log.info("schema_migrated", before=found, after=head())
    elif not _desk_is_open(connection):
        connection.execute("SELECT open_to_admins()")


def _run_alembic(connection: psycopg.Connection[Any]) -> None:
    """Upgrade in one transaction: it comes whole, or not at all."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
    config = script_config()
    with engine.begin() as wrapped:
        config.attributes["connection"] = wrapped
        command.upgrade(config, "head")


def _revision(connection: psycopg.Connection[Any]) -> str | None:
    cursor = connection.cursor(row_factory=tuple_row)
    if cursor.execute("SELECT to_regclass('public.alembic_version')").fetchone() == (None,):
        return None
    row = cursor.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _desk_is_open(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT to_regclass('codepods_admin.pod') IS NOT NULL").fetchone()
    return row is not None and bool(row[0])


def _log_notice(notice: Diagnostic) -> None:
    log.info("database_notice", notice=notice.message_primary, hint=notice.message_hint)


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().splitlines()[0]
