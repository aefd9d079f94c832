"""Processes of a container that its engine has lost.

An engine that was killed while it started a container may not know afterwards that it runs: it says that it
does not, refuses to start it, and its processes go on, on the files of the pod. Nobody can reach them, and
nobody may save what they write to, so they are ended. Nothing of the files goes with them.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import structlog

from node_agent.errors import StepError
from node_agent.proc import PROC

END_TIMEOUT_S = 5.0
LOOK_EVERY_S = 0.05
_SHIM = "containerd-shim"
_CLEARS_AWAY = "delete"
_ERRANDS = ("start", _CLEARS_AWAY)
_HOLDS = "holds"

log = structlog.get_logger(__name__)


class Ghosts:
    """Looks at this machine's processes."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc

    def of(self, container_id: str) -> tuple[int, ...]:
        """The processes of a container, whatever its engine says; none where this agent cannot see them."""
        return tuple(pid for pid in self._pids() if self._is_in(pid, container_id))

    def end(self, container_id: str, *, shim_too: bool = False) -> int:
        """SIGKILL for all of them, and for what holds them together for the engine. Only of a container that
        its engine says does not run. Returns how many there were, once they are gone and the engine has
        cleared away what the shim left.

        Raises StepError(`container_haunted`).
        """
        found = ended = self._holding(container_id, shim_too=shim_too)
        gives_up_at = time.monotonic() + END_TIMEOUT_S
        while (found or (ended and self._is_cleared_away(container_id))) and time.monotonic() < gives_up_at:
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(LOOK_EVERY_S)
            found = self._holding(container_id, shim_too=shim_too)
        if found:
            raise _haunted(container_id, found)
        if ended:
            log.warning("container.ghosts_ended", container=container_id, processes=ended)
        return len(ended)

    def _holding(self, container_id: str, *, shim_too: bool) -> tuple[int, ...]:
        shims = (pid for pid in self._pids() if shim_too and self._shim_does(pid, container_id) == _HOLDS)
        return (*self.of(container_id), *shims)

    def _is_cleared_away(self, container_id: str) -> bool:
        """By the engine, right now. Ended in the middle, it leaves a folder, and the pod never starts."""
        return any(self._shim_does(pid, container_id) == _CLEARS_AWAY for pid in self._pids())

    def _pids(self) -> list[int]:
        return [int(entry.name) for entry in self._proc.iterdir() if entry.name.isdecimal()]

    def _is_in(self, pid: int, container_id: str) -> bool:
        """In a cgroup of the container's or one below, and not dead already."""
        folder = self._proc / str(pid)
        try:
            named = container_id in (folder / "cgroup").read_text()
            return named and (folder / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
        except OSError:
            return False

    def _shim_does(self, pid: int, container_id: str) -> str:
        """What a process is for, if it is a shim of the container: an errand is its last word."""
        try:
            argv = (self._proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            return ""
        if not Path(argv[0]).name.startswith(_SHIM) or container_id not in argv:
            return ""
        words = [word for word in argv if word]
        return words[-1] if words[-1] in _ERRANDS else _HOLDS


def _haunted(container_id: str, pids: tuple[int, ...]) -> StepError:
    shown = ", ".join(map(str, pids[:5]))
    return StepError(
        f"The engine says that container {container_id[:12]} does not run, and processes of it do, which "
        f"SIGKILL does not end ({shown}). Nothing is done with it until they have ended. Look at them on the "
        "node: a disk or a network share that hangs, or a frozen cgroup.",
        code="container_haunted",
    )
