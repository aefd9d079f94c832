"""Agents that die at a failpoint, and a supervisor that starts them again without it."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.support.agent_process import AgentProcess

RESTART_AFTER_S = 0.05


@contextmanager
def revived(agents: Sequence[AgentProcess]) -> Iterator[list[str]]:
    """As a supervisor would: an agent that has died is started again, without its failpoint. Who died."""
    ending, died = threading.Event(), []

    def attend() -> None:
        while not ending.wait(RESTART_AFTER_S):
            died.extend(agent.node.node_id for agent in agents if agent.revive())

    thread = threading.Thread(target=attend)
    thread.start()
    try:
        yield died
    finally:
        ending.set()
        thread.join()


def arm(agents: Sequence[AgentProcess], failpoint: str) -> None:
    """Every agent begins anew, with this in its way."""
    for agent in agents:
        agent.begin_anew(failpoints=f"{failpoint}:1=crash")


def disarm(agents: Sequence[AgentProcess]) -> None:
    """Every agent begins anew, with nothing in its way."""
    for agent in agents:
        agent.begin_anew()
