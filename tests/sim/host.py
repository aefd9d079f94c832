"""The agent's own files, its journal, its firewall and its clock, on a simulated node."""

import errno
import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, cast

from node_agent.boot import Boots
from node_agent.errors import DiskFull, StepError
from node_agent.fencer import NOTE_EVERY_S, Fencer, Fences
from node_agent.freezer import Freezer
from node_agent.journal import Journal
from node_agent.parts import Parts
from node_agent.runtime import Volume, VolumeState
from tests.sim.docker import SimDocker
from tests.sim.machine import at
from tests.sim.scheduler import Scheduler

# Above what any clock that is set back may take away.
FIRST_BOOT = 10**9


def _host_error(message: str) -> StepError:
    return StepError(message, code="host_io")


class SimHost:
    """Stands for HostFiles: session secrets and volume markers, on the node's disk."""

    def __init__(self, docker: SimDocker) -> None:
        self._docker = docker
        self._scheduler = docker.scheduler

    def session_dir(self, pod_id: str, epoch: int) -> str:
        """See HostFiles."""
        return f"/sim/{self._docker.node_id}/session/{pod_id}-e{epoch}"

    def write_session(self, session_dir: str) -> str:
        """See HostFiles."""
        secret = hashlib.sha256(f"{session_dir} {self._scheduler.steps}".encode()).hexdigest()

        def effect() -> None:
            self._needs_room()
            self._docker.sessions[session_dir] = secret

        self._scheduler.call("host.write_session", effect, _host_error, mutates=True)
        return secret

    def _needs_room(self) -> None:
        if self._docker.has("disk_full"):
            raise DiskFull("No space is left on the device.")

    def read_session(self, session_dir: str | None) -> str | None:
        """See HostFiles."""
        return self._docker.sessions.get(session_dir or "")

    def drop_session(self, pod_id: str, epoch: int) -> None:
        """See HostFiles."""
        self._docker.sessions.pop(self.session_dir(pod_id, epoch), None)

    def volume_state(self, volume: Volume | None) -> VolumeState:
        """See HostFiles."""
        if volume is None:
            return VolumeState.ABSENT
        found = self._docker.volumes.get(volume.name)
        if found is None:
            raise _host_error(f"{volume.name} went away")
        if found.marker is not None:
            return found.marker
        return VolumeState.STRANGE if found.tree.data else VolumeState.HALF

    def mark(self, volume: Volume, state: VolumeState) -> None:
        """See HostFiles."""

        def effect() -> None:
            found = self._docker.volumes.get(volume.name)
            if found is None:
                raise _host_error(f"{volume.name} went away")
            self._needs_room()
            found.marker = state

        self._scheduler.call("host.mark", effect, _host_error, mutates=True, detail=f"{volume.name} {state}")

    def own_top(self, volume: Volume) -> None:
        """See HostFiles."""
        if volume.name not in self._docker.volumes:
            raise _host_error(f"{volume.name} went away")


class SimJournal(Journal):
    """Production's journal, with its file on the simulated disk."""

    def __init__(self, docker: SimDocker) -> None:
        self._docker = docker
        self._lock = threading.Lock()
        self._epochs = dict(docker.epochs)

    def see_all(self, epochs: dict[str, int]) -> None:
        """The port call comes before the lock is taken: actors share one thread."""
        if any(epoch > self._epochs.get(key, 0) for key, epoch in epochs.items()):
            self._docker.scheduler.call("journal.see", self._room, OSError, mutates=True)
        super().see_all(epochs)

    def _room(self) -> None:
        if self._docker.has("disk_full"):
            raise OSError(errno.ENOSPC, "No space left on device")

    def _write(self, epochs: dict[str, int]) -> None:
        self._docker.epochs.clear()
        self._docker.epochs.update(epochs)


class SimBoots(Boots):
    """Production's numbers of runs, with their file on the simulated disk. The clock counts births."""

    def __init__(self, docker: SimDocker, clock: int) -> None:
        self._docker = docker
        self._births = clock

    def _clock(self) -> int:
        return self._births + self._docker.clock_skew + FIRST_BOOT

    def _machine(self) -> str:
        return self._docker.kernel_boot

    def _last(self) -> int:
        return self._docker.boot_number

    def _write(self, number: int) -> None:
        self._docker.boot_number = number


class SimFreezer(Freezer):
    """Production's freezer, with its note on the simulated disk."""

    def __init__(self, runtime: Any, _note: Path) -> None:
        super().__init__(runtime, _note)
        self._docker = cast("SimDocker", runtime)

    def _write(self, container_ids: Sequence[str]) -> None:
        def effect() -> None:
            if self._docker.has("disk_full"):
                raise OSError(errno.ENOSPC, "No space left on device")
            self._docker.frozen = list(container_ids)

        self._docker.scheduler.call("host.write_frozen", effect, OSError, mutates=True)

    def _read(self) -> list[str]:
        return list(self._docker.frozen)

    def _forget(self) -> None:
        self._docker.frozen = []


class SimFences(Fences):
    """Production's fences, with their file on the simulated disk."""

    def __init__(self, docker: SimDocker) -> None:
        self._docker = docker
        self._lock = threading.Lock()
        self._seconds = dict(docker.fences)

    def set(self, container_id: str, seconds: int | None) -> None:
        """See Fences."""
        after = {key: kept for key, kept in self._seconds.items() if key != container_id}
        after |= {} if seconds is None else {container_id: seconds}
        if after != self._seconds:
            self._docker.scheduler.call(
                "host.write_fences", lambda: self._write(after), OSError, mutates=True
            )

    def _write(self, after: dict[str, int]) -> None:
        if self._docker.has("disk_full"):
            raise OSError(errno.ENOSPC, "No space left on device")
        self._docker.fences = self._seconds = after


class SimFencer(Fencer):
    """Production's fencer on the virtual clock, with its note on the simulated disk."""

    def __init__(self, docker: SimDocker, parts: Parts, stopped: Callable[[], None]) -> None:
        scheduler = docker.scheduler
        super().__init__(
            docker, parts.journal, parts.fences, stopped, Path("/nonexistent"), lambda: scheduler.now_s
        )
        self._docker = docker
        self._contact_at_s = docker.contact_s if parts.fences.all() else scheduler.now_s

    def contact(self, asked_at_s: float) -> None:
        """See Fencer."""
        self._contact_at_s = max(self._contact_at_s, asked_at_s)
        self._shut_out = None
        if self._contact_at_s - self._docker.contact_s > NOTE_EVERY_S:
            self._docker.contact_s = self._contact_at_s


class SimFirewall:
    """Stands for Firewall: the rules always hold."""

    def ensure(self) -> None:
        """See Firewall."""


class SimGhosts:
    """Stands for Ghosts: a simulated engine loses no container."""

    def end(self, container_id: str, *, shim_too: bool = False) -> int:
        """See Ghosts."""
        return 0


class SimTime:
    """Stands for the modules `time` and `datetime.datetime` in the agent."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def sleep(self, seconds: float) -> None:
        """On the virtual clock."""
        self._scheduler.sleep(seconds)

    def monotonic(self) -> float:
        """The virtual clock."""
        return self._scheduler.now_s

    def time(self) -> float:
        """The virtual clock, as seconds since 1970."""
        return at(self._scheduler.now_s).timestamp()

    def time_ns(self) -> int:
        """The virtual clock."""
        return int(self._scheduler.now_s * 1e9)

    def now(self, _zone: tzinfo | None = None) -> datetime:
        """The virtual clock."""
        return at(self._scheduler.now_s)


class SimEvent(threading.Event):
    """An event whose `wait` waits on the virtual clock."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def wait(self, timeout: float | None = None) -> bool:
        """See threading.Event."""
        self._scheduler.wait_for(self.is_set, timeout if timeout is not None else 3600)
        return self.is_set()


class SimLock:
    """A lock between greenlets, which all run in one thread."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False

    def __enter__(self) -> None:
        if self._held:
            self._scheduler.wait_for(lambda: not self._held)
        self._held = True

    def __exit__(self, *_error: Iterable[object]) -> None:
        self._held = False
