"""Stopping what must not go on running here: pods of a placement that is over, and pods cut off from us.

All pods, where another machine has been believed in this one's place for long, and runs them, too.

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
from node_agent.boot import kernel_boot
from node_agent.errors import StepError
from node_agent.host import write_atomically
from node_agent.journal import Journal
from node_agent.runtime import STOP_GRACE_S, Container, Runtime

LOOK_EVERY_S = 1.0
NOTE_EVERY_S = 5.0
CONTACT = "contact.json"
FILE_BYTES_MAX = 16_000_000
# Longer than a machine that is no more can be believed: then this one is let in again.
SHUT_OUT_S_MAX = 60.0
# Between two answers of the gateway, when it answers; after more, it is not known any more what it says.
ANSWERS_EVERY_S_MAX = 30.0

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


def _noted_contact(note: Path) -> float:
    """When the gateway last answered a former process of this boot, on the machine's monotonic clock.

    Nothing readable is long ago: who may have been started elsewhere by now is stopped.
    """
    try:
        noted = json.loads(note.read_text())
        return float(noted["at_s"]) if noted["boot"] == kernel_boot() else float("-inf")
    except (OSError, ValueError, TypeError, KeyError):
        return float("-inf")


def must_stop(
    container: Container,
    highest_epoch: Callable[[str], int],
    fences: Mapping[str, int],
    silent_s: float,
    shut_out_s: float = 0.0,
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
    if shut_out_s > SHUT_OUT_S_MAX:
        return f"another machine has been believed in this one's place for {shut_out_s:.0f} s"
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
        # Since when the gateway has said that another machine is believed, and when it last did.
        self._shut_out: tuple[float, float] | None = None

    def contact(self, asked_at_s: float) -> None:
        """The gateway has answered a request that was sent at `asked_at_s`."""
        self._contact_at_s = max(self._contact_at_s, asked_at_s)
        self._shut_out = None
        if self._fences.all() and self._contact_at_s - self._noted_at_s > NOTE_EVERY_S:
            self._noted_at_s = self._contact_at_s
            noted = {"boot": kernel_boot(), "at_s": self._contact_at_s}
            write_atomically(self._note, json.dumps(noted).encode())

    def silent_s(self) -> float:
        """How long the gateway has not answered, former processes of this agent included."""
        return self._monotonic() - self._contact_at_s

    def shut_out(self) -> None:
        """The gateway has answered that another machine is believed in this one's place."""
        now = self._monotonic()
        lasts = self._shut_out is not None and now - self._shut_out[1] <= ANSWERS_EVERY_S_MAX
        self._shut_out = (self._shut_out[0] if self._shut_out and lasts else now, now)

    def shut_out_s(self) -> float:
        """For how long it has said so; 0 when it does not, or has not been heard for a while."""
        told = self._shut_out
        if told is None or self._monotonic() - told[1] > ANSWERS_EVERY_S_MAX:
            return 0.0
        return told[1] - told[0]

    def must_look(self) -> bool:
        """Whether there may be something to stop."""
        silent_s = self.silent_s()
        cut_off = any(silent_s > seconds for seconds in self._fences.all().values())
        return self._stale.is_set() or cut_off or self.shut_out_s() > SHUT_OUT_S_MAX

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
        if not self.must_look():
            return 0
        silent_s, fences, shut_out_s = self.silent_s(), self._fences.all(), self.shut_out_s()
        try:
            found = [
                (container, why)
                for container in self._runtime.look().containers
                if (why := must_stop(container, self._journal.highest, fences, silent_s, shut_out_s))
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
