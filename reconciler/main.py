"""The reconciler process: wiring, signals, and nothing that decides.

The gateway serves from a thread of its own, whether we lead or not; the loop has the main thread.
"""

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import structlog
import uvicorn
from pydantic import TypeAdapter, ValidationError

from reconciler import edge
from reconciler.edge import Hints
from reconciler.gateway import DATABASE_CALLS_MAX, Gateway
from reconciler.lead import Lead
from reconciler.lives import LifeLoop
from reconciler.loop import Loop, Resync
from reconciler.outage import Outage
from reconciler.settings import Settings
from reconciler.tick import dry_run, tick
from reconciler.timers import start_timers
from state import logs, presence
from state.database import Database, DatabaseUnavailable, Doorbell
from state.migrate import WrongDatabase, migrate
from state.plan import Plan
from state.snapshot import database_clock

EXIT_FAILED = 1
EXIT_USAGE = 2
# Long polls are answered at once when we stop, so this is only for a report that is being written down.
GRACEFUL_STOP_S = 5
DATABASE_RETRY_S = 1.0
# What the gateway may use at a time, and one each for loop, policies, timers, waker and hints.
DATABASE_CONNECTIONS_MAX = DATABASE_CALLS_MAX + 5

log = structlog.get_logger(__name__)


class CannotRun(Exception):
    """There is no point in starting. The message says why and what to do."""


def main() -> None:
    """The entry point `codepods-reconciler`."""
    arguments = _arguments()
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit(_usage(error))
    logs.configure("auto", settings.log_level)
    try:
        _run(settings, arguments)
    except (CannotRun, WrongDatabase, DatabaseUnavailable) as error:
        log.error("cannot_run", error=str(error))
        sys.exit(EXIT_FAILED)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "codepods-reconciler", description="Drives pods to what is desired of them."
    )
    parser.add_argument("--once", action="store_true", help="decide once, print the plan as JSON, and end")
    parser.add_argument("--dry-run", action="store_true", help="with --once: write nothing down")
    arguments = parser.parse_args()
    if arguments.dry_run and not arguments.once:
        parser.error("--dry-run goes with --once")
    return arguments


def _usage(error: ValidationError) -> int:
    for problem in error.errors(include_input=False, include_url=False):
        name = "CODEPODS_" + "_".join(map(str, problem["loc"])).upper()
        sys.stderr.write(f"{name}: {problem['msg']}. docs/settings.md says what it is for.\n")
    return EXIT_USAGE


def _run(settings: Settings, arguments: argparse.Namespace) -> None:
    url = settings.database_url.get_secret_value()
    if arguments.once:
        with closing(Database(url, "reconciler")) as db:
            sys.stdout.write(_once(db, settings, arguments.dry_run) + "\n")
        return
    stop, outage = _stop_on_signals(), Outage("database")
    if _migrated(url, stop, outage):
        with closing(Database(url, "reconciler", DATABASE_CONNECTIONS_MAX)) as db:
            _serve(db, url, settings, stop, outage)


def _migrated(url: str, stop: threading.Event, outage: Outage) -> bool:
    """Bring the schema up to date, waiting for a database that is not there yet; False when told to stop."""
    while not stop.is_set():
        try:
            migrate(url)
        except DatabaseUnavailable as error:
            outage.met(error)
            stop.wait(DATABASE_RETRY_S)
        else:
            outage.over()
            return True
    return False


def _once(db: Database, settings: Settings, dry: bool) -> str:
    now = database_clock(db)
    if dry:
        plan = dry_run(db, settings.limits(), now)
    else:
        lead = Lead(db, f"{socket.gethostname()}:{os.getpid()}")
        lead.attend()
        leading = lead.current()
        if leading is None:
            raise CannotRun("another reconciler leads; add --dry-run to see what is due")
        plan = tick(db, settings.limits(), leading, now).plan
        lead.resign()
    return TypeAdapter(Plan).dump_json(plan, indent=2).decode()


def _serve(db: Database, url: str, settings: Settings, stop: threading.Event, outage: Outage) -> None:
    limits = settings.limits()
    listener = _listen(settings.gateway_host, settings.gateway_port)
    lead, resync = Lead(db, _holder(listener)), Resync()
    loop_bell = Doorbell(url, ["codepods_desired", "codepods_observed"])
    gateway_bell = Doorbell(url, ["codepods_actions", presence.ASK_CHANNEL])
    lives_bell = Doorbell(url, [presence.CHANNEL])
    lives = LifeLoop(db, lives_bell, limits, settings.life_limits(), lead, outage)
    timers = start_timers(db, limits, lead, resync.ask, outage)
    lives.start()
    hints = _hints(db, settings, outage)
    try:
        with _served(Gateway(db, gateway_bell, limits, extension=settings.extension()), listener):
            Loop(db, loop_bell, limits, lead, resync, outage).run(stop)
    finally:
        timers.stop()
        if hints is not None:
            hints.stop()
        lives.stop()
        lives_bell.close()
        loop_bell.close()
        gateway_bell.close()
        _resign(lead)


def _hints(db: Database, settings: Settings, outage: Outage) -> Hints | None:
    """The listener for nginx's hints. They only make things sooner: where it cannot be, all else goes on."""
    if settings.hints_port == 0:
        return None
    try:
        hints = Hints(db, edge.listen(settings.hints_host, settings.hints_port), outage)
    except OSError as error:
        log.warning("hints_not_heard", port=settings.hints_port, why=error.strerror)
        return None
    hints.start()
    return hints


@contextmanager
def _served(gateway: Gateway, listener: socket.socket) -> Iterator[None]:
    """The gateway, in a thread of its own."""
    config = uvicorn.Config(
        gateway.app(), log_config=None, access_log=False, timeout_graceful_shutdown=GRACEFUL_STOP_S
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="gateway", daemon=True)
    thread.start()
    host, port = listener.getsockname()[:2]
    log.info("gateway_listening", host=host, port=port)
    try:
        yield
    finally:
        gateway.close()
        server.should_exit = True
        thread.join(GRACEFUL_STOP_S + 1)
        log.info("stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise CannotRun(
            f"the gateway cannot listen on {host}:{port}: {error.strerror};"
            " set CODEPODS_GATEWAY_HOST or CODEPODS_GATEWAY_PORT to move it"
        ) from error


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _resign(lead: Lead) -> None:
    try:
        lead.resign()
    except DatabaseUnavailable as error:
        log.warning("not_resigned", error=str(error), why="the lease runs out by itself")


def _holder(listener: socket.socket) -> str:
    """A name that nobody has beside us, and that we have again after a restart: so we lead at once then."""
    return f"{socket.gethostname()}:{listener.getsockname()[1]}"


if __name__ == "__main__":
    main()
