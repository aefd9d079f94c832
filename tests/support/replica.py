"""PostgreSQL after a failover to a replica that missed the last commits: the rows of an earlier moment."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from state.embedded import SUPERUSER
from tests.support.postgres import TestServer

_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relname <> 'alembic_version' ORDER BY c.relname
"""
_CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Replica:
    """Keeps all rows as they are at `catch_up`; after `promote` the database has those, and no later ones."""

    def __init__(self, superuser_url: str) -> None:
        """Triggers have to be switched off, which owners may not."""
        self._connection = psycopg.connect(superuser_url, autocommit=True)

    def catch_up(self) -> None:
        """Whatever is committed from now on is missed."""
        with self._connection.transaction():
            self._connection.execute("DROP SCHEMA IF EXISTS replica CASCADE")
            self._connection.execute("CREATE SCHEMA replica")
            for name in self._tables():
                self._run("CREATE TABLE replica.{0} AS TABLE public.{0}", name)

    def promote(self) -> None:
        """All connections end, and who connects again finds what the replica had."""
        with self._connection.transaction():
            self._connection.execute("SET LOCAL session_replication_role = replica")
            tables = self._tables()
            self._run("LOCK TABLE {0}", sql.SQL(", ").join(tables))
            for name in tables:
                self._run("DELETE FROM public.{0}", name)
                self._run("INSERT INTO public.{0} OVERRIDING SYSTEM VALUE TABLE replica.{0}", name)
            self._connection.execute(_CUT)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def _tables(self) -> list[sql.Composable]:
        return [sql.Identifier(name) for (name,) in self._connection.execute(_TABLES)]

    def _run(self, query: str, name: sql.Composable) -> None:
        self._connection.execute(sql.SQL(query).format(name))


@pytest.fixture
def replica(postgres_server: TestServer, database_name: str) -> Iterator[Replica]:
    """Of the test's database."""
    made = Replica(postgres_server.url_of(database_name, SUPERUSER))
    yield made
    made.close()
