"""`codepods-api`: settings, wiring, serving, and a graceful stop."""

import signal
import sys
from types import FrameType

import structlog
import uvicorn
from pydantic import ValidationError

from api import access_files, port_files
from api.app import create_app
from api.deps import Deps, make_deps
from api.levelling import LevelThread
from api.settings import ApiSettings
from state import logs
from state.database import Database, Doorbell

CHANNELS = ("codepods_desired", "codepods_observed", "codepods_decided")
CONNECTIONS_MAX = 2000
KEEP_ALIVE_S = 5

log = structlog.get_logger()


class Server(uvicorn.Server):
    """uvicorn, whose stop first lets the waiting requests go: they would hold it for their time-out."""

    def __init__(self, config: uvicorn.Config, deps: Deps) -> None:
        super().__init__(config)
        self._deps = deps

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """A signal asks the program to stop."""
        log.info("stopping", signal=signal.Signals(sig).name)
        self._deps.waiters.close()
        # Not uvicorn's way, which raises the signal again at the end: a stop that was asked for is exit 0.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def serve(settings: ApiSettings) -> None:
    """Serve until a signal."""
    url = settings.database_url.get_secret_value()
    db = Database(url, "api", pool_size=settings.database_connections_max)
    deps = make_deps(db, settings)
    app = create_app(deps, lambda: Doorbell(url, CHANNELS))
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.stop_timeout_s,
        ws="none",
        lifespan="on",
    )
    log.info("serving", host=settings.api_host, port=settings.api_port)
    threads = _level_threads(db, settings)
    for thread in threads:
        thread.start()
    try:
        Server(config, deps).run()
    finally:
        for thread in threads:
            thread.stop()
        db.close()


def _level_threads(db: Database, settings: ApiSettings) -> list[LevelThread]:
    threads = [LevelThread("access-files", lambda: access_files.level(db, settings))]
    if settings.ports_directory:
        files = port_files.PortFiles(settings.ports_directory)
        threads.append(LevelThread("port-files", lambda: port_files.level(files, db, settings)))
    return threads


def main() -> None:
    """Entry point of `codepods-api`. Exit code 2 when a setting is missing or wrong."""
    try:
        settings = ApiSettings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = "CODEPODS_" + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"codepods-api: {name}: {problem['msg']}. docs/api.md lists the settings.", file=sys.stderr)
        sys.exit(2)
    logs.configure(settings.log_format)
    serve(settings)


if __name__ == "__main__":
    main()
