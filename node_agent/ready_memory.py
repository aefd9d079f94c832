"""Which starts have been seen to answer. Kept in memory only: after an agent restart they are probed anew."""

import threading
from collections.abc import Iterable

from node_agent.runtime import Container, Status


class ReadyMemory:
    """Starts, each a container with its start time. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts: set[tuple[str, str]] = set()

    def confirm(self, container: Container) -> None:
        """The IDE of this start has answered."""
        with self._lock:
            self._starts.add((container.id, container.started_at))

    def is_ready(self, container: Container) -> bool:
        """It runs, and its IDE has answered since this very start."""
        with self._lock:
            known = (container.id, container.started_at) in self._starts
        return known and container.status is Status.RUNNING

    def keep_only(self, containers: Iterable[Container]) -> None:
        """Forget starts that are over."""
        current = {(container.id, container.started_at) for container in containers}
        with self._lock:
            self._starts &= current
