"""The schema: migrations and tables agree, and migrating is safe to repeat, to share and to refuse."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from state.columns import DESIRED, Owner
from state.database import Database
from state.migrate import WrongDatabase, head, migrate, schema_problem
from state.model import RESERVED_PER_POD, Limits
from state.tables import PodRow
from tests.support.postgres import TestServer

CATALOGUES = {
    "columns": """
        SELECT c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity, pg_get_expr(d.adbin, d.adrelid)
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
           AND c.relname <> 'alembic_version'
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass
           AND contype <> 't'
    """,
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
         WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    """,
    "storage": """
        SELECT relname, reloptions FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
    """,
}


@pytest.fixture
def empty_url(postgres_server: TestServer) -> Iterator[str]:
    """A database with nothing in it."""
    name = postgres_server.create("template1")
    yield postgres_server.url_of(name)
    postgres_server.drop(name)


def problem_of(url: str) -> str | None:
    """What the API's readiness would say."""
    with closing(Database(url, "api")) as db:
        return schema_problem(db)


def engine_of(url: str) -> Any:
    """SQLAlchemy on the same database."""
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)


def catalogue(url: str, query: str) -> list[Any]:
    """What PostgreSQL says of a schema, in a fixed order."""
    with psycopg.connect(url) as connection:
        return sorted(connection.execute(query).fetchall(), key=repr)


@pytest.fixture
def from_tables_url(empty_url: str) -> str:
    """A database made from the SQLModel tables alone."""
    with psycopg.connect(empty_url) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num text)")
    engine = engine_of(empty_url)
    SQLModel.metadata.create_all(engine)
    return empty_url


@pytest.mark.parametrize("what", CATALOGUES)
def test_migrations_and_tables_agree(database_url: str, from_tables_url: str, what: str) -> None:
    """Every column, default, constraint, index and storage setting is the same in both."""
    migrated, declared = (catalogue(url, CATALOGUES[what]) for url in (database_url, from_tables_url))

    assert migrated == declared
    assert len(migrated) > 10


def test_alembic_finds_nothing_to_migrate(database_url: str) -> None:
    """Alembic's own comparison, which the next migration would be made from, is empty."""
    with engine_of(database_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_each_column_has_an_owner() -> None:
    """LAW 3 can only be kept where each column names its writer."""
    columns = [column for table in SQLModel.metadata.tables.values() for column in table.columns]

    assert all(isinstance(column.info["owner"], Owner) for column in columns)


def test_admins_may_change_just_the_desired_columns(database_url: str) -> None:
    """The columns that state.tables calls desired are those that codepods_admin is granted, and no others."""
    with psycopg.connect(database_url) as connection:
        granted = connection.execute("""
            SELECT table_name, column_name FROM information_schema.column_privileges
             WHERE table_schema = 'public' AND grantee = 'codepods_admin' AND privilege_type <> 'SELECT'
        """).fetchall()
    declared = [
        (table.name, column.name)
        for table in SQLModel.metadata.tables.values()
        for column in table.columns
        if column.info["owner"] is DESIRED
    ]

    assert sorted(granted) == sorted(declared)
    assert ("pod", "desired_state") in granted


@pytest.mark.parametrize(
    "column", [c for c in PodRow.metadata.tables["pod"].columns if c.info["owner"] is DESIRED]
)
def test_each_desired_column_but_the_reason_makes_a_generation(db: Database, column: Any) -> None:
    """The trigger counts changes of exactly the columns that state.tables calls desired (LAW 4)."""
    others = {
        "desired_state": "stopped",
        "failover": "from_last_archive",
        "image": "other/image",
        "lab": "other",
        "keep_until": "2030-01-01",
    }
    value = others.get(column.name, "because" if column.name == "desired_reason" else 1234)
    with db.transaction() as connection:
        connection.execute("INSERT INTO workspace (id, user_id) VALUES ('w-aaaaaaaaaaaa', 'alice')")
        connection.execute("""
            INSERT INTO pod (id, workspace_id, user_id, name, image, desired_state)
            VALUES ('p-aaaaaaaaaaaa', 'w-aaaaaaaaaaaa', 'alice', 'main', 'codepods/pod', 'running')
        """)
        query = sql.SQL("UPDATE pod SET {} = %s RETURNING generation").format(sql.Identifier(column.name))
        row = connection.execute(query, (value,)).fetchone()

    assert row == {"generation": 1 if column.name == "desired_reason" else 2}


def test_the_views_count_as_the_planner_does(db: Database) -> None:
    """What SQL repeats of the planner's figures is the same: a node's silence, and what a pod reserves."""
    with db.transaction() as connection:
        row = connection.execute("SELECT node_silent_after() AS after").fetchone()
        view = connection.execute("SELECT pg_get_viewdef('node_status') AS text").fetchone()

    assert row == {"after": Limits().node_silent_after}
    assert view is not None
    assert f"* {RESERVED_PER_POD.cpu_millis}) AS reserved_cpu_millis" in view["text"]
    assert f"* {RESERVED_PER_POD.memory_mib}) AS reserved_memory_mib" in view["text"]


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    """A second migration of the same version is no work."""
    migrate(database_url)

    assert problem_of(database_url) is None


def test_programs_that_start_together_migrate_once(empty_url: str) -> None:
    """Four programs on an empty database: one migrates, the others wait, all find it ready."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate, [empty_url] * 4))

    with psycopg.connect(empty_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(head(),)]


def test_a_newer_schema_is_refused(database_url: str) -> None:
    """An older program leaves a newer database alone, and says which is which."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(WrongDatabase, match="has schema 9999, which is newer than this version"):
        migrate(database_url)
    assert problem_of(database_url) == f"the schema is 9999, and this version works with {head()}"


def test_a_database_without_tables_is_named_as_such(empty_url: str) -> None:
    """The API's readiness says that nobody has migrated yet."""
    assert problem_of(empty_url) == f"the schema is missing, and this version works with {head()}"


def test_a_cut_migration_leaves_nothing(empty_url: str) -> None:
    """A migration that fails half way is rolled back whole, and the next one starts from nothing."""
    with psycopg.connect(empty_url) as connection:
        connection.execute("CREATE VIEW node_status AS SELECT 1 AS in_the_way")

    with pytest.raises(psycopg.errors.DuplicateTable):
        migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        assert connection.execute("SELECT to_regclass('pod'), to_regclass('alembic_version')").fetchone() == (
            None,
            None,
        )
        connection.execute("DROP VIEW node_status")
    migrate(empty_url)


def test_a_user_who_may_not_make_tables_is_told_so(postgres_server: TestServer, empty_url: str) -> None:
    """A login without rights on the database gets what to grant, not a stack trace."""
    with psycopg.connect(empty_url) as connection:
        connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    name = empty_url.rpartition("/")[2]

    with pytest.raises(WrongDatabase, match="may not make the tables: permission denied for schema public"):
        migrate(postgres_server.url_of(name, "codepods_admin"))
