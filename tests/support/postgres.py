"""Real PostgreSQL for tests: one server a session, and for each test its own database from a template."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from state.database import Database
from state.embedded import ADMIN, OWNER, SUPERUSER, EmbeddedPostgres
from state.migrate import migrate

TEMPLATE = "template_codepods"
_numbers = count(1)


class TestServer:
    """The session's server. `url_of` gives connection strings for a test's database."""

    __test__ = False

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.postgres = postgres
        self._superuser = psycopg.connect(postgres.url_of(SUPERUSER, "postgres"), autocommit=True)

    def make_template(self) -> None:
        """Migrate once; each test's database is a copy."""
        self._run("CREATE DATABASE {} OWNER {}", TEMPLATE, OWNER)
        migrate(self.url_of(TEMPLATE))

    def create(self, template: str = TEMPLATE) -> str:
        """The name of a new database."""
        name = f"test_{next(_numbers)}"
        self._run("CREATE DATABASE {} TEMPLATE {} OWNER {}", name, template, OWNER)
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def url_of(self, database: str, role: str = OWNER) -> str:
        """The connection string of a database, for its owner or another role."""
        return self.postgres.url_of(role, database)

    def close(self) -> None:
        """Disconnect and stop."""
        self._superuser.close()
        self.postgres.stop()

    def _run(self, query: str, *names: str) -> None:
        self._superuser.execute(sql.SQL(query).format(*map(sql.Identifier, names)))


@contextmanager
def serving() -> Iterator[TestServer]:
    """A server of one's own, without fsync, and its template; gone at the end."""
    home = Path(tempfile.mkdtemp(prefix="codepods-test-postgres-"))
    home.chmod(0o711)
    postgres = EmbeddedPostgres(home / "postgres", durable=False)
    try:
        postgres.start()
        server = TestServer(postgres)
        server.make_template()
        yield server
        server.close()
    finally:
        postgres.stop()
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[TestServer]:
    """One server for the session."""
    with serving() as server:
        yield server


@pytest.fixture
def database_name(postgres_server: TestServer) -> Iterator[str]:
    """A migrated, empty database."""
    name = postgres_server.create()
    yield name
    postgres_server.drop(name)


@pytest.fixture
def database_url(postgres_server: TestServer, database_name: str) -> str:
    """The connection string that programs get: the database's owner, no superuser."""
    return postgres_server.url_of(database_name)


@pytest.fixture
def admin_url(postgres_server: TestServer, database_name: str) -> str:
    """The connection string of a person in psql: the role codepods_admin."""
    return postgres_server.url_of(database_name, ADMIN)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A session that may write what any program may."""
    database = Database(database_url, "test")
    yield database
    database.close()
