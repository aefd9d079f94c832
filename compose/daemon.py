"""The supervisor's process: `python -m compose.daemon HOME`. Started by `up`, asked to end by `down`."""

import os
import sys
from pathlib import Path

from compose.bringup import Bringup, StopRequestedError
from compose.containers import stop_pods
from compose.environment import Environment, environment_of
from compose.installation import load_installation
from compose.journal import Journal, Kind
from compose.layout import Layout
from compose.lock import EXIT_RUNS_ALREADY, SUPERVISOR, take_lock
from compose.problems import ProblemError
from compose.processes import ProcessId
from compose.programs import log_directories
from compose.supervisor import StopRequest, Supervisor, keep_running

EXIT_PROBLEM = 1


def main() -> int:
    """Run until asked to stop. Exit code 1 when it could not be brought up: the journal says why."""
    layout = Layout(Path(sys.argv[1]))
    stop = StopRequest()
    lock = take_lock(layout)
    if lock is None:
        return EXIT_RUNS_ALREADY
    journal = Journal(layout.events)
    me = ProcessId.of(os.getpid())
    if me:
        me.write(layout.pid_of(SUPERVISOR))
    try:
        installation = load_installation(layout)
        if installation is None:
            raise ProblemError(f"{layout.home} is no installation: it has no config.json.")
        return run(environment_of(layout, installation), journal, stop)
    except ProblemError as error:
        journal.tell(Kind.PROBLEM, text=str(error))
        return EXIT_PROBLEM
    finally:
        journal.tell(Kind.STOPPED)
        layout.pid_of(SUPERVISOR).unlink(missing_ok=True)


def run(environment: Environment, journal: Journal, stop: StopRequest) -> int:
    """Bring up, keep running, and in any case stop everything in reverse order, pods last."""
    supervisor = Supervisor(journal, logs=log_directories(environment))
    try:
        Bringup(environment, supervisor, journal, stop).run()
        journal.tell(Kind.READY)
        keep_running(supervisor, stop)
    except StopRequestedError:
        pass
    finally:
        journal.tell(Kind.STOPPING)
        supervisor.stop_all()
        stop_pods(
            environment.installation.node_ids,
            lambda words: journal.tell(Kind.DETAIL, step="stop", text=words),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
