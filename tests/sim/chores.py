"""Chores in an agent of the simulation: production's runner and handlers, and one worker for them.

Which chores are due is in care.py, how they are given out in chore_rows.py, what is written down in
care_done.py; the messages that carry them are those of SimGateway.
"""

from node_agent.chores import Budget, ChoreRunner
from state.compactions import COMPACT
from state.copy_wire import CHECKPOINT, RECOVER_COPY
from state.scrubs import SCRUB
from state.sweeps import SWEEP, TIDY
from tests.sim.scheduler import Process, Scheduler

# Not those that need images, or somebody who waits at the other end of a stream.
KINDS = (CHECKPOINT, COMPACT, RECOVER_COPY, SCRUB, SWEEP, TIDY)
# Nobody waits for it here.
BYTES_PER_S = 10**9


class Caretaker:
    """An agent's chores; it asks for none before `begin`."""

    def __init__(self, runner: ChoreRunner, process: Process, scheduler: Scheduler) -> None:
        self._runner, self._process, self._scheduler = runner, process, scheduler
        self._handlers = {kind: runner._handlers[kind] for kind in KINDS}
        runner._handlers = {}
        runner._budget = Budget(BYTES_PER_S, lambda: scheduler.now_s)

    def begin(self) -> None:
        """From now on its node takes chores."""
        self._runner._handlers = self._handlers
        name = f"{self._process.name}/{self._process.birth}/chores"
        self._scheduler.spawn(self._process, name, self._work)

    def _work(self) -> None:
        """The loop of `ChoreRunner.run`."""
        while True:
            self._scheduler.wait_for(self._runner.may_run)
            if (work := self._runner.take_now()) is not None:
                self._runner.do(work)
