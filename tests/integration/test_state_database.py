"""Connections, the doorbell and the embedded server: with a real PostgreSQL, stopped, killed and cut off."""

import os
import shutil
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from state.database import Database, DatabaseUnavailable, Doorbell
from state.embedded import EmbeddedError, EmbeddedPostgres
from state.migrate import migrate
from tests.support.postgres import TestServer
from tests.support.rows import add_pod, add_workspace

SILENCE_S = 0.05
LONG_S = 30.0


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that other users of the system can walk to."""
    directory = Path(tempfile.mkdtemp(prefix="codepods-test-embedded-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, to be done things to."""
    postgres = EmbeddedPostgres(home / "postgres", durable=False)
    postgres.start()
    yield postgres
    postgres.stop()


def cut_off(postgres_server: TestServer, database_name: str) -> None:
    """End all sessions of a database, as an operator or a failing network would."""
    with psycopg.connect(postgres_server.url_of("postgres", "postgres"), autocommit=True) as superuser:
        superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database_name,)
        )


# ---- sessions ----------------------------------------------------------------------------------------------


def test_a_session_says_who_it_is_and_holds_nothing_for_long(database_url: str) -> None:
    """The settings that the guards, the planner and a lost network need are on every connection."""
    with closing(Database(database_url, "reconciler")) as db, db.transaction() as connection:
        names = [
            "codepods.program",
            "application_name",
            "idle_in_transaction_session_timeout",
            "random_page_cost",
        ]
        found = [connection.execute("SELECT current_setting(%s) AS v", (name,)).fetchone() for name in names]
        keepalive = connection.execute("SHOW tcp_keepalives_idle").fetchone()

    assert [row["v"] for row in found if row] == ["reconciler", "codepods-reconciler", "30s", "1.1"]
    assert keepalive == {"tcp_keepalives_idle": "5"}


def test_options_of_the_connection_string_are_kept(database_url: str) -> None:
    """An operator's own settings stay beside ours."""
    with (
        closing(Database(f"{database_url}?options=-c%20work_mem%3D7MB", "api")) as db,
        db.transaction() as connection,
    ):
        row = connection.execute(
            "SELECT current_setting('work_mem') AS m, session_is('api') AS api"
        ).fetchone()

    assert row == {"m": "7MB", "api": True}


def test_an_exception_rolls_back(db: Database) -> None:
    """Nothing of a transaction that failed is there."""
    with pytest.raises(ZeroDivisionError):
        fail_after_inserting(db)
    with db.transaction() as connection:
        assert connection.execute("SELECT id FROM workspace").fetchall() == []


def fail_after_inserting(db: Database) -> None:
    """A transaction that breaks."""
    with db.transaction() as connection:
        connection.execute("INSERT INTO workspace (id, user_id) VALUES ('w-aaaaaaaaaaaa', 'alice')")
        raise ZeroDivisionError


def test_cut_connections_are_replaced_unnoticed(
    db: Database, postgres_server: TestServer, database_name: str
) -> None:
    """Who comes after a cut gets a new connection, not an error."""
    for _ in range(2):
        with db.transaction() as connection:
            assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
        cut_off(postgres_server, database_name)


def test_a_cut_in_mid_transaction_can_be_tried_again(
    db: Database, postgres_server: TestServer, database_name: str
) -> None:
    """It says that it may be tried again, in words for the user."""
    with pytest.raises(
        DatabaseUnavailable, match="the database cannot be used now: terminating connection due to"
    ):
        be_cut(db, postgres_server, database_name)


def be_cut(db: Database, postgres_server: TestServer, database_name: str) -> None:
    """A transaction that loses its connection."""
    with db.transaction() as connection:
        cut_off(postgres_server, database_name)
        connection.execute("SELECT 1")


def test_a_mistake_is_no_outage(db: Database) -> None:
    """Errors that would only come again are not called unavailable."""
    with pytest.raises(psycopg.errors.UndefinedTable), db.transaction() as connection:
        connection.execute("SELECT * FROM nothing")


def test_a_full_pool_says_so(database_url: str) -> None:
    """Who waits in vain for a connection learns that all are busy."""
    with closing(Database(database_url, "api", pool_size=1, pool_timeout_s=2)) as db, db.transaction():
        assert "all 1 connections to the database have been busy for 2 s" in reason_of_outage(db)


def test_nobody_home_says_why_and_where() -> None:
    """A wrong address is named with the reason that the system gives."""
    with closing(Database("postgresql://codepods@127.0.0.1:1/codepods", "api", pool_timeout_s=0.1)) as db:
        assert "port 1 failed: Connection refused" in reason_of_outage(db)


def reason_of_outage(db: Database) -> str:
    """What a program says whose transaction does not even begin."""
    with pytest.raises(DatabaseUnavailable) as refused:
        db.transaction().__enter__()
    return str(refused.value)


# ---- the doorbell ------------------------------------------------------------------------------------------


@pytest.fixture
def bell(database_url: str) -> Iterator[Doorbell]:
    """A bell that has connected: from now on it rings for what happens."""
    with closing(Doorbell(database_url, ["codepods_desired", "codepods_observed"])) as bell:
        assert bell.wait(0)
        yield bell


def test_a_bell_rings_for_its_channels_only(bell: Doorbell, db: Database) -> None:
    """What is rung for others is not heard."""
    with db.transaction() as connection:
        connection.execute("NOTIFY codepods_actions")
    assert not bell.wait(SILENCE_S)
    with db.transaction() as connection:
        connection.execute("NOTIFY codepods_observed")
    assert bell.wait(LONG_S)


def test_many_rings_while_nobody_waits_are_one(bell: Doorbell, db: Database) -> None:
    """Whoever was busy looks once, not once for each."""
    for _ in range(100):
        with db.transaction() as connection:
            connection.execute("NOTIFY codepods_observed")
    rings = 0
    while bell.wait(1.0):
        rings += 1

    assert 1 <= rings < 100


def test_a_bell_that_was_cut_off_asks_to_look(
    bell: Doorbell, postgres_server: TestServer, database_name: str
) -> None:
    """What was rung while nobody listened is lost, so the first thing after coming back is a look (LAW 1)."""
    cut_off(postgres_server, database_name)

    assert not bell.wait(LONG_S)
    assert bell.wait(LONG_S)
    assert not bell.wait(SILENCE_S)


def test_a_ring_from_inside_ends_the_wait(bell: Doorbell) -> None:
    """A program that stops, or has work for itself, does not wait for the time to pass."""
    waited: list[bool] = []
    waiter = threading.Thread(target=lambda: waited.append(bell.wait(LONG_S)))
    waiter.start()
    bell.ring()
    waiter.join(LONG_S / 2)
    for _ in range(10_000):
        bell.ring()

    assert waited == [True]


def test_a_bell_without_a_database_waits_and_comes_back(server: EmbeddedPostgres) -> None:
    """It never raises: a stopped server is silence, a started one is a ring."""
    migrate(server.url)
    with closing(Doorbell(server.url, ["codepods_desired"])) as bell:
        assert bell.wait(LONG_S)
        server.stop()
        assert [bell.wait(SILENCE_S) for _ in range(3)] == [False] * 3
        again = EmbeddedPostgres(server.log_path.parent, port=server.port, durable=False)
        again.start()
        assert bell.wait(LONG_S)
        again.stop()


# ---- the embedded server -----------------------------------------------------------------------------------


def test_a_server_is_made_once_and_found_again(server: EmbeddedPostgres, home: Path) -> None:
    """Another process that starts the same directory gets the running server, with its data."""
    migrate(server.url)
    other = EmbeddedPostgres(home / "postgres", durable=False)
    other.start()

    assert (other.pid, other.port, other.url) == (server.pid, server.port, server.url)


def test_the_programs_are_no_superusers_and_passwords_are_kept_close(
    server: EmbeddedPostgres, home: Path
) -> None:
    """The owner of the database cannot read the server's files, and without a password nobody gets in."""
    with psycopg.connect(server.url) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert row == (False, False)
        address = connection.execute(
            "SELECT setting FROM pg_settings WHERE name = 'listen_addresses'"
        ).fetchone()
        assert address == ("127.0.0.1",)
    assert stat.S_IMODE((home / "postgres" / "passwords.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "postgres" / "data").stat().st_mode) == 0o700
    with pytest.raises(
        psycopg.OperationalError, match=r"no password supplied|password authentication failed"
    ):
        psycopg.connect(f"postgresql://codepods@127.0.0.1:{server.port}/codepods", passfile="/dev/null")


def test_a_killed_server_comes_back_with_everything(server: EmbeddedPostgres, home: Path) -> None:
    """After kill -9 it replays its log: what was committed is there."""
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while server.is_running():
        time.sleep(0.01)
    again = EmbeddedPostgres(home / "postgres", durable=False)
    again.start()

    with psycopg.connect(again.url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    again.stop()


def test_stopping_twice_is_stopping(server: EmbeddedPostgres) -> None:
    """What is stopped already is no error."""
    server.stop()
    server.stop()

    assert not server.is_running()


def test_a_start_that_was_cut_is_done_over(home: Path) -> None:
    """Half a data directory of an interrupted first start is thrown away."""
    half = home / "postgres" / "data.partial"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    postgres = EmbeddedPostgres(home / "postgres", durable=False)
    postgres.start()
    postgres.stop()

    assert not half.exists()


def test_a_port_that_is_taken_is_said(home: Path) -> None:
    """In one line, with what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        postgres = EmbeddedPostgres(home / "postgres", port=port, durable=False)
        with pytest.raises(EmbeddedError, match=f"port {port} on 127.0.0.1 is taken"):
            postgres.start()


def test_data_of_another_postgresql_are_left_alone(home: Path) -> None:
    """The message says which version made them, and the way over."""
    data = home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")

    with pytest.raises(
        EmbeddedError, match=r"was made by PostgreSQL 16; this version of codepods comes with 18"
    ):
        EmbeddedPostgres(home / "postgres").start()


@pytest.mark.parametrize("part", ["closed"])
def test_a_place_that_the_servers_user_cannot_reach_is_said(home: Path, part: str) -> None:
    """As root the server is another user: the message names the directory in the way."""
    closed = home / part
    closed.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(closed / "postgres", durable=False)
    if os.geteuid() == 0:
        with pytest.raises(EmbeddedError, match=f"cannot get into {closed} and so not to"):
            postgres.start()
    else:
        postgres.start()
        postgres.stop()


# ---- a database user who may not make roles ----------------------------------------------------------------


def test_without_the_right_to_make_roles_there_is_no_desk_and_all_else_works(
    server: EmbeddedPostgres,
) -> None:
    """On another's PostgreSQL the role is left out; once a DBA has made it, the next start opens the desk."""
    with psycopg.connect(server.superuser_url, autocommit=True) as dba:
        dba.execute("DROP ROLE codepods_admin")
        migrate(server.url)
        assert desk_of(server) is None
        with closing(Database(server.url, "test")) as db, db.transaction() as connection:
            add_workspace(connection)
            add_pod(connection)
            assert connection.execute("SELECT actual FROM pod_status").fetchone() == {"actual": "absent"}
        dba.execute("CREATE ROLE codepods_admin")
    migrate(server.url)

    assert desk_of(server) == "codepods_admin.pod"


def test_a_user_who_may_make_roles_gets_one_without_a_login(server: EmbeddedPostgres) -> None:
    """Nobody can connect as the role until an admin says who."""
    with psycopg.connect(server.superuser_url, autocommit=True) as dba:
        dba.execute("DROP ROLE codepods_admin")
        dba.execute("ALTER ROLE codepods CREATEROLE")
        migrate(server.url)
        row = dba.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'codepods_admin'").fetchone()

    assert row == (False,)
    assert desk_of(server) == "codepods_admin.pod"


def desk_of(server: EmbeddedPostgres) -> str | None:
    """The admins' view of pods, if there is one."""
    with psycopg.connect(server.superuser_url) as connection:
        row = connection.execute("SELECT to_regclass('codepods_admin.pod')::text").fetchone()
    assert row is not None
    name: str | None = row[0]
    return name
