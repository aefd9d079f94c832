"""Stopping what must not go on running here: pods of a placement that is over, and pods cut off from us.

Stops only; nothing is removed (LAW 9). A pod that may go on elsewhere (failover) is stopped by its own node
once there has been no contact with the gateway for the time it was started with, counted on the monotonic
clock from before the last answered request was sent: whoever starts it elsewhere waits longer than that.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from node_agent import labels
from node_agent.errors import StepError
from node_agent.host import write_atomically
from node_agent.journal import Journal
from node_agent.runtime import STOP_GRACE_S, Container, Runtime

LOOK_EVERY_S = 1.0
NOTE_EVERY_S = 5.0
CONTACT = "contact.json"
FILE_BYTES_MAX = 16_000_000

log = structlog.get_logger(__name__)


class Fences:
    """Which containers were started with a fence, in seconds; durable. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seconds = _read(path)

    def set(self, container_id: str, seconds: int | None) -> None:
        """Remember the fence of a container that is about to be started. Raises OSError."""
        with self._lock:
            after = {key: kept for key, kept in self._seconds.items() if key != container_id}
            if seconds is not None:
                after[container_id] = seconds
            if after != self._seconds:
                write_atomically(self._path, json.dumps(after).encode())
                self._seconds = after

    def get(self, container_id: str) -> int | None:
        """The fence of a container, if it has one."""
        with self._lock:
            return self._seconds.get(container_id)

    def all(self) -> dict[str, int]:
        """Those that have one."""
        with self._lock:
            return dict(self._seconds)


def _read(path: Path) -> dict[str, int]:
    """What was written; nothing readable is no fence: then the pod is waited for instead of moved."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(FILE_BYTES_MAX))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if type(value) is int and value > 0}


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _noted_contact(note: Path) -> float:
    """When the gateway last answered a former process of this boot, on the machine's monotonic clock.

    Nothing readable is long ago: who may have been started elsewhere by now is stopped.
    """
    try:
        noted = json.loads(note.read_text())
        return float(noted["at_s"]) if noted["boot"] == _boot_id() else float("-inf")
    except (OSError, ValueError, TypeError, KeyError):
        return float("-inf")


def must_stop(
    container: Container, highest_epoch: Callable[[str], int], fences: Mapping[str, int], silent_s: float
) -> str | None:
    """Why a container may not go on running, or None. Pure."""
    if not container.live:
        return None
    try:
        read = labels.read_pod(container.labels)
    except labels.Unreadable:
        return None
    newest = highest_epoch(read.workspace)
    if read.epoch < newest:
        return f"its user has been placed anew since: this is of epoch {read.epoch}, the newest is {newest}"
    fence_s = fences.get(container.id)
    if fence_s is not None and silent_s > fence_s:
        return f"no contact with the gateway for {silent_s:.0f} s: it may be started elsewhere soon"
    return None


class Fencer:
    """Looks once a second while there is something to look for."""

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        fences: Fences,
        stopped: Callable[[], None],
        note: Path,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`note` keeps when the gateway last answered: a restart must not begin the wait anew."""
        self._runtime, self._journal, self._fences, self._stopped = runtime, journal, fences, stopped
        self._monotonic = monotonic
        self._note = note
        self._contact_at_s = _noted_contact(note) if fences.all() else monotonic()
        self._noted_at_s = self._contact_at_s
        self._stale = threading.Event()
        self._stale.set()  # after a start, look once at what is there
        self._ending = threading.Event()

    def contact(self, asked_at_s: float) -> None:
        """The gateway has answered a request that was sent at `asked_at_s`."""
        self._contact_at_s = max(self._contact_at_s, asked_at_s)
        if self._fences.all() and self._contact_at_s - self._noted_at_s > NOTE_EVERY_S:
            self._noted_at_s = self._contact_at_s
            noted = {"boot": _boot_id(), "at_s": self._contact_at_s}
            write_atomically(self._note, json.dumps(noted).encode())

    def silent_s(self) -> float:
        """How long the gateway has not answered, former processes of this agent included."""
        return self._monotonic() - self._contact_at_s

    def outdated(self) -> None:
        """The journal has learnt of higher epochs than something here may be of."""
        self._stale.set()

    def run(self) -> None:
        """Until `stop`."""
        while not self._ending.wait(LOOK_EVERY_S):
            self.look()

    def stop(self) -> None:
        """End `run`."""
        self._ending.set()

    def look(self) -> int:
        """Stop what must not run; how many were stopped. Looked at again until none is left."""
        silent_s = self.silent_s()
        fences = self._fences.all()
        if not self._stale.is_set() and not any(silent_s > seconds for seconds in fences.values()):
            return 0
        try:
            found = [
                (container, why)
                for container in self._runtime.look().containers
                if (why := must_stop(container, self._journal.highest, fences, silent_s))
            ]
            for container, why in found:
                log.warning("fencer.stops", container=container.id, name=container.name, why=why)
                self._runtime.stop(container.id, STOP_GRACE_S)
        except StepError as error:
            log.warning("fencer.cannot", why=error.message)
            return 0
        if found:
            self._stopped()
        else:
            self._stale.clear()
        return len(found)
