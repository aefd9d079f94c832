"""Connections: short transactions from a small pool, and the doorbell.

Each session tells the database which program it is (`codepods.program`), which is what its guards against
writing another's columns go by (docs/sql.md).
"""

import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

Program = Literal["api", "reconciler", "admin", "test"]
Connection = psycopg.Connection[DictRow]

CONNECT_TIMEOUT_S = 5
# How long a request may wait for a connection before it is told that the database is busy.
POOL_TIMEOUT_S = 5.0
# psycopg's executemany and pools are at their best with few connections on few cores (docs/bench.md).
POOL_SIZE = 4
RECONNECT_PAUSE_S = 1.0

# Tests set up what two programs own. An admin's tools act as the API does.
_PROGRAMS: dict[Program, str] = {
    "api": "api",
    "reconciler": "reconciler",
    "admin": "api",
    "test": "api,reconciler",
}

_SETTINGS = {
    # With the default of 4 the planner scans all pods where an index would do (docs/bench.md).
    "random_page_cost": "1.1",
    # A forgotten transaction holds back vacuum, and every no-op pass then reads dead rows.
    "idle_in_transaction_session_timeout": "30s",
    "lock_timeout": "10s",
    # A client that is cut off must not hold its locks for the kernel's two hours.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
}

# SQLSTATE classes and codes after which the same call may succeed.
_RETRYABLE = ("08", "53", "57P", "25006", "40001", "40P01", "55P03", "57014", "25P03")

log = structlog.get_logger(__name__)


class DatabaseUnavailable(Exception):
    """The database did not do this now; the same call may succeed later. The message is for the user."""

    @classmethod
    def of(cls, error: psycopg.Error) -> "DatabaseUnavailable":
        """The message for a driver's error: what, why, what to do."""
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return cls(f"the database cannot be used now: {why}. It is tried again; see that PostgreSQL runs.")


class Database:
    """A pool of connections of one program. Threads share it."""

    def __init__(
        self,
        url: str,
        program: Program,
        pool_size: int = POOL_SIZE,
        pool_timeout_s: float = POOL_TIMEOUT_S,
    ) -> None:
        """Does not connect yet: the first transaction does."""
        self._conninfo = session_conninfo(url, program)
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            self._conninfo,
            connection_class=psycopg.Connection[DictRow],
            kwargs={"row_factory": dict_row},
            min_size=0,
            max_size=pool_size,
            timeout=pool_timeout_s,
            max_idle=600,
            reconnect_timeout=0,
            check=ConnectionPool.check_connection,
            name=f"codepods-{program}",
            open=False,
        )
        self._opening = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back by an exception.

        Raises `DatabaseUnavailable` when the database cannot be reached, is restarting, or broke off this
        transaction in favour of another one. Never hold it across a call to anything but the database.
        """
        self._open()
        try:
            with self._pool.connection() as connection:
                yield connection
        except PoolTimeout as error:
            raise self._no_connection() from error
        except psycopg.Error as error:
            if is_retryable(error):
                raise DatabaseUnavailable.of(error) from error
            raise

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _no_connection(self) -> DatabaseUnavailable:
        """The pool only says that it waited in vain. A try of our own says whether it is full or cut off."""
        try:
            psycopg.connect(self._conninfo).close()
        except psycopg.Error as error:
            return DatabaseUnavailable.of(error)
        return DatabaseUnavailable(
            f"all {self._pool.max_size} connections to the database have been busy for "
            f"{self._pool.timeout:.0f} s. Try again in a few seconds."
        )

    def _open(self) -> None:
        if self._pool.closed:
            with self._opening:
                self._pool.open()


def act_as(connection: Connection, actor: str) -> None:
    """Name, for the rest of this transaction, on whose behalf desired columns change: the events say it."""
    connection.execute("SELECT set_config('codepods.actor', %s, true)", (actor,))


def session_conninfo(url: str, program: Program) -> str:
    """The connection string with the session's settings in it; options that it has already are kept."""
    given = conninfo_to_dict(url)
    settings = {**_SETTINGS, "codepods.program": _PROGRAMS[program]}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    defaults = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": f"codepods-{program}",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }
    merged: dict[str, Any] = {
        **defaults,
        **given,
        "options": f"{given.get('options') or ''} {options}".strip(),
    }
    return make_conninfo("", **merged)


def is_retryable(error: psycopg.Error) -> bool:
    """Whether the same call may succeed later without anybody changing anything."""
    if error.sqlstate is None:  # the connection broke, or was never there
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_RETRYABLE)


class Doorbell:
    """Hears NOTIFY on some channels. It only says "look sooner" (LAW 1): rings may be lost or repeated."""

    def __init__(self, url: str, channels: Sequence[str]) -> None:
        """Connects at the first wait."""
        self._conninfo = session_conninfo(url, "api")
        self._channels = tuple(channels)
        self._connection: psycopg.Connection[Any] | None = None
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def wait(self, timeout_s: float) -> bool:
        """Whether it rang within the time, or may have: True also after each (re)connection."""
        try:
            if self._connection is None:
                self._connection = self._listen()
                return True
            return self._heard(self._connection, timeout_s)
        except psycopg.Error as error:
            log.warning("doorbell_lost", error=str(error).strip())
            self._drop()
            return self._sleep(min(timeout_s, RECONNECT_PAUSE_S))

    def ring(self) -> None:
        """Ring from inside this process, from any thread: ends a wait at once."""
        with suppress(BlockingIOError):  # so many rings are waiting that one more says nothing
            self._waker.send(b"!")

    def close(self) -> None:
        """Stop listening. Not while another thread waits."""
        self._drop()
        self._woken.close()
        self._waker.close()

    def _listen(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._conninfo, autocommit=True)
        for channel in self._channels:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        return connection

    def _heard(self, connection: psycopg.Connection[Any], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            rung_here = self._sleep(left_s, connection.fileno())
            if list(connection.notifies(timeout=0)) or rung_here:
                return True
            if left_s == 0.0:
                return False

    def _sleep(self, seconds: float, *wake_at: int) -> bool:
        """Sleep until a file descriptor has something to read; whether it was a ring from inside."""
        own = self._woken.fileno()
        ready, _, _ = select.select([own, *wake_at], [], [], seconds)
        return own in ready and bool(self._woken.recv(4096))

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
