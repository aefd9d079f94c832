"""The installation's database: the embedded PostgreSQL as a service, or the operator's own; what is in it."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from compose.environment import Environment
from compose.local_api import Client
from compose.problems import ProblemError
from compose.processes import ProcessId
from compose.supervisor import ServiceError
from state import nodes, tokens
from state.database import Database, DatabaseUnavailable
from state.embedded import ADMIN, EmbeddedError, EmbeddedPostgres, psql_path
from state.migrate import WrongDatabase, migrate

TOKEN_NAME = "client.json"  # noqa: S105  the name that an admin sees in the list of tokens


def what_it_is(environment: Environment) -> str:
    """For the person who waits for it."""
    if environment.database_url is None:
        first = not (environment.layout.postgres / "data").exists()
        return "Embedded PostgreSQL" + (", made new" if first else "")
    return f"PostgreSQL on {urlsplit(environment.database_url).hostname or 'a socket'}"


class EmbeddedService:
    """The embedded PostgreSQL under a supervisor."""

    name = "postgres"

    def __init__(self, environment: Environment) -> None:
        layout = environment.layout
        self._server = EmbeddedPostgres(layout.postgres, port=environment.ports.postgres)
        self._pid_file = layout.pid_of(self.name)
        self._link_log(layout.log_of(self.name))

    @property
    def url(self) -> str:
        """For the programs, once started."""
        return self._server.url

    def start(self) -> int:
        """Start it, and return when it answers. Raises `ServiceError`."""
        try:
            self._server.start()
        except EmbeddedError as error:
            raise ServiceError(str(error)) from error
        pid = self._server.pid
        known = ProcessId.of(pid) if pid else None
        if pid is None or known is None:
            raise ServiceError(f"PostgreSQL ended at once. Its log: {self._server.log_path}")
        known.write(self._pid_file)
        return pid

    def ended(self) -> str | None:
        """That it ended; the server does not say how."""
        return None if self._server.is_running() else "ended"

    def stop(self) -> None:
        """End it, with everything written."""
        try:
            self._server.stop()
        except EmbeddedError as error:
            raise ProblemError(str(error)) from error
        self._pid_file.unlink(missing_ok=True)

    def _link_log(self, place: Path) -> None:
        """People look for it beside the other logs."""
        place.unlink(missing_ok=True)
        place.symlink_to(self._server.log_path)


@dataclass(frozen=True, slots=True)
class Prepared:
    """How we reach the API, and when each node was last heard before this start."""

    client: Client
    heard: dict[str, datetime | None]


def prepare(environment: Environment, url: str) -> Prepared:
    """Schema up to date, nodes made known, a token for ourselves. Raises `ProblemError`."""
    try:
        migrate(url)
        db = Database(url, "admin")
        try:
            for node in environment.installation.nodes:
                nodes.register(db, node.id, node.token)
            heard = {node.id: node.last_seen_at for node in nodes.list_nodes(db)}
            return Prepared(_client(environment, db), heard)
        finally:
            db.close()
    except (WrongDatabase, DatabaseUnavailable) as error:
        raise ProblemError(f"The database cannot be used: {error}") from error


def _client(environment: Environment, db: Database) -> Client:
    """The client file's token if it still opens; otherwise a new one."""
    known = Client.load(environment.layout)
    good = known is not None and tokens.authenticate(db, known.token) is not None
    token = known.token if known and good else tokens.create_token(db, TOKEN_NAME, "admin")[1]
    client = Client(environment.api_url, str(environment.layout.tls / "ca.crt"), token)
    client.save(environment.layout)
    return client


def run_psql(environment: Environment, arguments: Sequence[str]) -> int:
    """psql as `codepods_admin`, who may read all but secrets and change what is desired; its exit code."""
    url, password = _without_password(_admin_url(environment))
    environ = {**os.environ, "PGPASSWORD": password, "PGAPPNAME": "codepods-psql"}
    if environment.database_url is not None:
        # Their own login becomes the role, if it is a member: so the guards hold for it too.
        environ["PGOPTIONS"] = f"-c role={ADMIN}"
    return subprocess.run((str(psql_path()), url, *arguments), env=environ, check=False).returncode


def _admin_url(environment: Environment) -> str:
    if environment.database_url is not None:
        return environment.database_url
    server = EmbeddedPostgres(environment.layout.postgres, port=environment.ports.postgres)
    if not server.is_running():
        raise ProblemError("The database does not run: make up")
    server.start()
    return server.admin_url


def _without_password(url: str) -> tuple[str, str]:
    """The URL for the command line, which others can read, and the password for the environment."""
    parts = urlsplit(url)
    if parts.password is None:
        return url, os.environ.get("PGPASSWORD", "")
    user = quote(parts.username or "")
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}@{address}")), parts.password
