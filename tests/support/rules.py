"""The database's rules, tried: a small one_pod, a person in psql, programs, and how they are refused."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from state.database import Connection, Database
from tests.support.rows import add_action, add_archive, add_node, add_pod, add_workspace, observe, place


@pytest.fixture
def one_pod(db: Database) -> Database:
    """One pod, running on one node, with an open action and an archive."""
    with db.transaction() as connection:
        add_workspace(connection)
        add_pod(connection)
        add_node(connection)
        place(connection)
        observe(connection, "running")
        add_action(connection)
        add_archive(connection)
    return db


@pytest.fixture
def person(one_pod: Database, database_url: str) -> Iterator[Connection]:
    """The database's owner in psql: who could switch every trigger off, and still is told."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        yield connection
        connection.rollback()


def refusal(connection: Connection, statement: str) -> psycopg.errors.Diagnostic:
    """How the database refuses a statement. What came before in the transaction stays."""
    with pytest.raises(psycopg.Error) as caught, connection.transaction():
        connection.execute(statement)
    return caught.value.diag


class Program:
    """A session of one program, rolled back at its end."""

    def __init__(self, url: str, program: Any) -> None:
        self._connection: Connection = psycopg.connect(
            url, row_factory=dict_row, options=f"-c codepods.program={program}"
        )

    def __enter__(self) -> Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.rollback()
        self._connection.close()
