"""From nothing to an installation that answers, step by step, inside the supervisor's process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from compose import database
from compose.certificates import Certificates
from compose.environment import Environment
from compose.front import lets_through
from compose.journal import Journal, Kind
from compose.labs import publish_labs
from compose.local_api import answers
from compose.problems import ProblemError
from compose.programs import control_plane, ensure_secrets, front_door, node_agents
from compose.supervisor import Service, ServiceError, StopRequest, Supervisor

READY_TIMEOUT_S = 90.0
ASK_EVERY_S = 0.1
LOG_LINES_SHOWN = 5

Detail = Callable[[str], None]


class StopRequestedError(Exception):
    """Somebody asked for the end before the beginning was over."""


class Bringup:
    """The steps in their order. What was started stays with the supervisor, also when a later step fails."""

    def __init__(
        self, environment: Environment, supervisor: Supervisor, journal: Journal, stop: StopRequest
    ) -> None:
        self._environment = environment
        self._supervisor = supervisor
        self._journal = journal
        self._stop = stop

    def run(self) -> None:
        """Raises `ProblemError`, or `StopRequestedError`."""
        with self._step("secrets", "Certificates and keys"):
            certificates = ensure_secrets(self._environment)
        with self._step("database", database.what_it_is(self._environment)):
            database_url = self._start_database()
        with self._step("schema", "Database schema, tokens and nodes"):
            prepared = database.prepare(self._environment, database_url)
        with self._step("labs", "Sample labs into the object store"):
            publish_labs(self._environment.store_url)
        with self._step("programs", "Reconciler, API, node agents and nginx") as detail:
            for program in control_plane(self._environment, database_url):
                self._start(program)
            for program in node_agents(self._environment):
                self._start(program)
            for program in front_door(self._environment, certificates):
                self._start(program)
            self._wait_until_ready(prepared, certificates, detail)

    @contextmanager
    def _step(self, step: str, text: str) -> Iterator[Detail]:
        if self._stop.requested:
            raise StopRequestedError
        began_at = time.monotonic()
        self._journal.tell(Kind.STEP, step=step, text=text)
        yield lambda words: self._journal.tell(Kind.DETAIL, step=step, text=words)
        self._journal.tell(Kind.STEP_DONE, step=step, took_s=round(time.monotonic() - began_at, 3))

    def _start_database(self) -> str:
        if self._environment.database_url:
            return self._environment.database_url
        postgres = database.EmbeddedService(self._environment)
        self._start(postgres)
        return postgres.url

    def _start(self, service: Service) -> None:
        try:
            self._supervisor.start(service)
        except (OSError, ServiceError) as error:
            raise ProblemError(f"{service.name} could not be started: {error}") from error

    def _wait_until_ready(
        self, prepared: database.Prepared, certificates: Certificates, detail: Detail
    ) -> None:
        """The API is ready, nginx lets us through to it, and each node has reported."""
        environment = self._environment
        certificate = environment.front.certificate or certificates.certificate
        self._wait(lambda: answers(f"{prepared.client.url}/api/v1/readyz"), "the API", detail)
        https = environment.ports.https
        self._wait(lambda: lets_through(environment.front, https, certificate), "nginx", detail)
        self._wait(
            lambda: self._nodes_have_reported(prepared, detail), "the node agents' first report", detail
        )

    def _nodes_have_reported(self, prepared: database.Prepared, detail: Detail) -> bool:
        try:
            silent = self._silent_nodes(prepared)
        except ProblemError as error:
            detail(str(error))
            return False
        return not silent

    def _silent_nodes(self, prepared: database.Prepared) -> set[str]:
        """Those not heard since this start: what they reported before, pods were stopped after."""
        told = prepared.client.call("GET", "nodes")["nodes"]
        heard = {
            node["node_id"]
            for node in told
            if _is_news(node["last_seen_at"], prepared.heard, node["node_id"])
        }
        return {node.id for node in self._environment.installation.running} - heard

    def _wait(self, holds: Callable[[], bool], what: str, detail: Detail) -> None:
        detail(f"waiting for {what}")
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not holds():
            self._supervisor.look()
            if self._stop.requested:
                raise StopRequestedError
            self._refuse_a_loop()
            if time.monotonic() > deadline:
                raise ProblemError(
                    f"Waited {READY_TIMEOUT_S:.0f} s for {what}. The logs: {self._environment.layout.log}"
                )
            self._stop.wait(ASK_EVERY_S)

    def _refuse_a_loop(self) -> None:
        """A program that keeps dying while we wait for it will not come up by waiting."""
        unsteady = self._supervisor.unsteady()
        if unsteady is None:
            return
        name, how = unsteady
        log = self._environment.layout.log_of(name)
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:] if log.exists() else []
        raise ProblemError("\n".join([f"{name} {how}, again and again. The end of {log}:", *lines]))


def _is_news(last_seen_at: str | None, before: dict[str, datetime | None], node_id: str) -> bool:
    return last_seen_at is not None and datetime.fromisoformat(last_seen_at) != before.get(node_id)
