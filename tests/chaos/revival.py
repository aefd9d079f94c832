"""Agents that die at a failpoint, and a supervisor that starts them again without it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.site import Site

RESTART_AFTER_S = 0.05


@contextmanager
def revived(site: Site) -> Iterator[list[str]]:
    """As a supervisor would: an agent that has died is started again, without its failpoint. Who died."""
    ending, died = threading.Event(), []

    def attend() -> None:
        while not ending.wait(RESTART_AFTER_S):
            for agent in site.agents:
                if agent.has_died():
                    died.append(agent.node.node_id)
                    agent.start()

    thread = threading.Thread(target=attend)
    thread.start()
    try:
        yield died
    finally:
        ending.set()
        thread.join()


def arm(site: Site, failpoint: str) -> None:
    """Every agent begins anew, with this in its way."""
    for agent in site.agents:
        agent.kill()
        agent.start(failpoints=f"{failpoint}:1=crash")


def disarm(site: Site) -> None:
    """Every agent begins anew, with nothing in its way."""
    for agent in site.agents:
        agent.kill()
        agent.start()
