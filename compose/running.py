"""Starting the supervisor and following what it does, from the terminal's side."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

from compose.environment import Environment
from compose.journal import Entry, Follower, Kind
from compose.layout import CHECKOUT, Layout
from compose.lock import EXIT_RUNS_ALREADY, SUPERVISOR, is_running
from compose.problems import ProblemError
from compose.progress import Progress

POLL_S = 0.05


def start(environment: Environment, progress: Progress) -> None:
    """Start the supervisor, detached from this terminal, and return when everything answers.

    Raises `ProblemError` when it does not come up: then nothing of it is left running.
    """
    layout = environment.layout
    follower = Follower(layout.events)
    follower.skip_to_end()
    with layout.log_of(SUPERVISOR).open("ab") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "compose.daemon", str(layout.home)),
            cwd=CHECKOUT,
            env=dict(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _follow_until_ready(layout, follower, progress, lambda: process.poll() in (None, EXIT_RUNS_ALREADY))


def wait_until_ready(layout: Layout, progress: Progress) -> None:
    """Return when the supervisor that runs already has brought everything up."""
    follower = Follower(layout.events)
    if not any(entry["kind"] == Kind.READY for entry in follower.new()):
        _follow_until_ready(layout, follower, progress, lambda: is_running(layout))


def _follow_until_ready(
    layout: Layout, follower: Follower, progress: Progress, lives: Callable[[], bool]
) -> None:
    problem = ""
    ended = False
    while not ended:
        # Asked before reading, so that nothing it told last is missed.
        ended = not lives()
        for entry in follower.new():
            if entry["kind"] == Kind.READY:
                return
            if entry["kind"] == Kind.PROBLEM:
                problem = entry["text"]
            progress.show(entry)
        progress.tick()
        time.sleep(POLL_S)
    progress.leave()
    raise ProblemError(problem or f"The supervisor ended. Its log: {layout.log_of(SUPERVISOR)}")


def follow(layout: Layout, tell: Callable[[Entry], None]) -> None:
    """Hand on what happens from now on, until the supervisor has ended."""
    follower = Follower(layout.events)
    follower.skip_to_end()
    while is_running(layout):
        for entry in follower.new():
            tell(entry)
        time.sleep(0.5)
    for entry in follower.new():
        tell(entry)
