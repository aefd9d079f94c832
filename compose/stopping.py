"""Ending an installation: in order where its supervisor lives, by pid files where it was killed."""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from compose.containers import remove_everything, stop_pods
from compose.installation import Installation
from compose.journal import Follower
from compose.layout import Layout
from compose.lock import SUPERVISOR, is_running
from compose.problems import ProblemError
from compose.processes import ProcessId, end_session, wait_until
from compose.progress import Progress
from compose.runtime_directory import discard
from node_agent.errors import StepError
from node_agent.firewall import Firewall, rules_for

# All programs' own time-outs in a row, and the pods' grace.
STOP_TIMEOUT_S = 180.0
PID_FILE_TIMEOUT_S = 5.0
# How a program is asked to end at once; SIGTERM for the others. PostgreSQL would wait for its clients.
ASK = {"postgres": signal.SIGINT}


def stop(layout: Layout, installation: Installation, progress: Progress) -> None:
    """End supervisor, programs and pods; nothing happens where they have ended."""
    with progress.step("Stopping programs and pods") as detail:
        if is_running(layout):
            _stop_supervisor(layout, progress)
        end_leftovers(layout)
        discard(layout.home)
        stop_pods(installation.node_ids, detail)


def _stop_supervisor(layout: Layout, progress: Progress) -> None:
    pid_file = layout.pid_of(SUPERVISOR)
    wait_until(lambda: ProcessId.read(pid_file) is not None, PID_FILE_TIMEOUT_S)
    supervisor = ProcessId.read(pid_file)
    if supervisor is None or not supervisor.is_alive():
        raise ProblemError(
            f"Some process holds {layout.lock}, but {pid_file} does not say which: end it by hand."
        )
    follower = Follower(layout.events)
    follower.skip_to_end()
    os.kill(supervisor.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while is_running(layout) and time.monotonic() < deadline:
        for entry in follower.new():
            progress.show(entry)
        progress.tick()
        time.sleep(0.1)
    if is_running(layout):
        os.kill(supervisor.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(layout), PID_FILE_TIMEOUT_S)


def end_leftovers(layout: Layout) -> None:
    """End what a killed supervisor may have left, found by the pid files. Only when no supervisor runs."""
    for pid_file in layout.run.glob("*.pid"):
        known = ProcessId.read(pid_file)
        if known is not None:
            end_session(known, ask=ASK.get(pid_file.stem, signal.SIGTERM))
        pid_file.unlink(missing_ok=True)


def remove(layout: Layout, installation: Installation, progress: Progress) -> None:
    """Remove for good what this installation has in the engine, in the firewall and on the disk."""
    with progress.step("Removing containers, volumes and networks") as detail:
        remove_everything(installation.node_ids, detail)
    _remove_firewalls(installation)
    with progress.step("Removing files"):
        _remove_files(layout)


def _remove_firewalls(installation: Installation) -> None:
    """Where the engine's chain is gone, ours hang on nothing: no packet comes to them."""
    for node_id in installation.node_ids:
        with contextlib.suppress(StepError):
            Firewall(rules_for(node_id, (), ())).remove()


def _remove_files(layout: Layout) -> None:
    """Only what is ours: somebody may have put the home into a directory with other things in it."""
    ours = (
        layout.postgres,
        layout.store,
        layout.nginx,
        layout.tls,
        layout.keyring.parent,
        layout.log,
        layout.run,
    )
    for directory in (*ours, layout.home / "nodes"):
        if directory.exists():
            shutil.rmtree(directory)
    # The last one: a clean that was cut is begun again by what it says.
    for file in (layout.pod_image, layout.client, layout.config):
        file.unlink(missing_ok=True)
    _remove_if_empty(layout.home)


def _remove_if_empty(home: Path) -> None:
    if not any(home.iterdir()):
        home.rmdir()
