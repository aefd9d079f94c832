"""Production's `state/` on a real PostgreSQL whose clock is the simulation's.

`now()` and `clock_timestamp()` are found in a schema `sim` before `pg_catalog`, also by the defaults, views
and triggers of the schema: all of it is migrated under that search path. Nothing else is exchanged but the
shapes of ids, which are short here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Identifier

from state import ids
from state.database import Connection, Database, Program, session_conninfo
from state.embedded import OWNER, SUPERUSER
from state.migrate import migrate
from tests.sim.care import STORE_ID, SWEPT_AFTER
from tests.sim.rows import action_id, archive_id
from tests.support.postgres import TestServer

NAME = "simulated"
_PATH = "public, sim, pg_catalog"
_CLOCK = f"""
    CREATE SCHEMA sim;
    GRANT USAGE ON SCHEMA sim TO PUBLIC;
    CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE AS
        $$ SELECT current_setting('sim.now')::timestamptz $$;
    CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
        $$ SELECT current_setting('sim.now')::timestamptz $$;
    ALTER DATABASE {NAME} SET search_path = {_PATH};
    ALTER DATABASE {NAME} SET sim.now = '2026-01-01 00:00:00+00';
"""
# Functions with a path of their own would find the real clock first. What is days there is minutes here.
_SAME_CLOCK = f"""
    DO $$
    DECLARE one regprocedure;
    BEGIN
        FOR one IN SELECT oid FROM pg_proc WHERE pronamespace = 'public'::regnamespace
                      AND array_to_string(proconfig, ',') LIKE '%search_path%' LOOP
            EXECUTE format('ALTER FUNCTION %s SET search_path = public, sim, pg_catalog, pg_temp', one);
        END LOOP;
    END $$;
    DO $$
    DECLARE one regprocedure;
    BEGIN
        FOR one IN SELECT oid FROM pg_proc WHERE proname IN ('note_store_target', 'note_archived_target') LOOP
            EXECUTE replace(pg_get_functiondef(one), '3 days', '{SWEPT_AFTER.total_seconds()} seconds');
        END LOOP;
    END $$;
    SET session_replication_role = replica;
    UPDATE installation SET store_id = '{STORE_ID}';
    SET session_replication_role = DEFAULT;
    ALTER TABLE pod DROP CONSTRAINT pod_id_is_p_dash_12_base32;
    ALTER TABLE workspace DROP CONSTRAINT workspace_id_is_w_dash_12_base32;
    ALTER TABLE archive DROP CONSTRAINT archive_id_is_a_dash_12_base32;
"""
_TABLES = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
       AND relname NOT IN ('alembic_version', 'installation')
"""
_WITHOUT_TRIGGERS = "SET LOCAL session_replication_role = replica"


class ClockedDatabase(Database):
    """One connection, and each transaction at the simulation's time."""

    def __init__(self, url: str, program: Program, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._connection: Connection = psycopg.Connection[DictRow].connect(
            session_conninfo(url, program), autocommit=True, row_factory=dict_row
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """See Database; errors are not made any nicer."""
        self._connection.execute(f"BEGIN; SET LOCAL sim.now = '{self._clock().isoformat()}'")
        try:
            yield self._connection
        except BaseException:  # a greenlet is killed by one that is no `Exception`
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


class SimServer:
    """One database on a server, emptied for each run."""

    def __init__(self, server: TestServer) -> None:
        self.url = server.url_of(NAME, OWNER)
        superuser = server.postgres.url_of(SUPERUSER, "postgres")
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {NAME} OWNER {OWNER}")
        self._superuser = psycopg.connect(server.postgres.url_of(SUPERUSER, NAME), autocommit=True)
        self._superuser.execute(_CLOCK)
        migrate(self.url)
        self._superuser.execute(_SAME_CLOCK)

    def empty(self) -> None:
        """No rows are left of the run before."""
        self.go_back({})
        self._superuser.execute("ALTER TABLE restoration ALTER COLUMN id RESTART")

    def rows(self) -> dict[str, bytes]:
        """All there are, by table, as PostgreSQL's COPY writes them."""
        found = {}
        for table in self._tables():
            with self._superuser.cursor().copy(SQL("COPY {} TO STDOUT").format(table)) as copy:
                found[table.as_string()] = b"".join(copy)
        return found

    def go_back(self, rows: Mapping[str, bytes]) -> None:
        """There are these, and no others."""
        with self._superuser.transaction(), self._superuser.cursor() as cursor:
            cursor.execute(_WITHOUT_TRIGGERS)
            for table in self._tables():
                cursor.execute(SQL("DELETE FROM {}").format(table))
                with cursor.copy(SQL("COPY {} FROM STDIN").format(table)) as copy:
                    copy.write(rows.get(table.as_string(), b""))

    def _tables(self) -> list[Identifier]:
        return [Identifier("public", name) for (name,) in self._superuser.execute(_TABLES)]

    def close(self) -> None:
        """Disconnect."""
        self._superuser.close()


@pytest.fixture(scope="session")
def sim_server(postgres_server: TestServer) -> Iterator[SimServer]:
    """A real database under the simulation's clock, for all tests of the session."""
    server = SimServer(postgres_server)
    yield server
    server.close()


class DrawnIds:
    """Ids by number instead of by chance, in the order in which they are asked for."""

    def __init__(self) -> None:
        self.actions = 0
        self.archives = 0

    def action(self) -> str:
        """The next action's."""
        self.actions += 1
        return action_id(self.actions)

    def archive(self) -> str:
        """The next archive's."""
        self.archives += 1
        return archive_id(self.archives)

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Of the real ones."""
        made: Any = ids
        before = made.new_action_id, made.new_archive_id
        made.new_action_id, made.new_archive_id = self.action, self.archive
        try:
            yield
        finally:
            made.new_action_id, made.new_archive_id = before
