"""Child processes that end with us, are known again after us, and leave nothing of theirs behind.

A child leads a session of its own, so whatever it starts can be found and ended with it (nginx's workers
outlive a killed master). It gets SIGTERM from the kernel when we die, however we die. Linux only.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STAT_STATE, _STAT_SESSION, _STAT_START_TIME = 0, 3, 19  # proc(5), counted after the name
POLL_S = 0.05

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be taken for a later one with the same number: pid and start time, this boot."""

    pid: int
    start_time: int
    boot: str

    def write(self, path: Path) -> None:
        """Into a pid file, in one step. A full disk is passed over: it only helps after a crash."""
        temporary = path.with_name(f".{path.name}.new")
        with contextlib.suppress(OSError):
            temporary.write_text(f"{self.pid} {self.start_time} {self.boot}\n")
            temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> "ProcessId | None":
        """What a pid file says, or None where it says nothing that can be read."""
        try:
            pid, start_time, boot = path.read_text().split()
            return cls(int(pid), int(start_time), boot)
        except (OSError, ValueError):
            return None

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The process that has this number now."""
        fields = _stat(pid)
        return cls(pid, int(fields[_STAT_START_TIME]), _boot()) if fields else None

    def is_alive(self) -> bool:
        """Whether this very process runs (a zombie does not)."""
        fields = _stat(self.pid)
        return (
            fields is not None
            and fields[_STAT_STATE] != "Z"
            and int(fields[_STAT_START_TIME]) == self.start_time
            and self.boot == _boot()
        )

    def session_members(self) -> list[int]:
        """The living processes of the session that this process leads or led."""
        if self.boot != _boot() or self._number_was_reused():
            return []
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in numbers if _in_session(pid, self.pid)]

    def _number_was_reused(self) -> bool:
        """The kernel keeps a number back while a session bears it; a leader with it is ours or a stranger."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[_STAT_START_TIME]) != self.start_time


def _in_session(pid: int, session: int) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[_STAT_STATE] != "Z" and int(fields[_STAT_SESSION]) == session


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may hold spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def spawn(argv: tuple[str, ...], environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a child whose output is appended to `log`. Raises OSError when it cannot be executed."""
    parent = os.getpid()

    def end_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked to be told
            os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(  # the caller waits for it
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Safe: supervisors have one thread when they start children.
            preexec_fn=end_with_parent,
        )


def signal_all(pids: list[int], signal_number: int) -> None:
    """Send to each that is still there and ours to signal."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal_number)


def end_session(leader: ProcessId, *, ask: int = signal.SIGTERM, timeout_s: float = 10.0) -> bool:
    """End a leader and all of its session: asked first, killed later. True when they are gone."""
    if leader.is_alive():
        signal_all([leader.pid], ask)
        wait_until(lambda: not leader.is_alive(), timeout_s)
    signal_all(leader.session_members(), signal.SIGKILL)
    return wait_until(lambda: not leader.session_members(), timeout_s)


def wait_until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until `holds()`, at most `timeout_s`. The last answer."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def describe_exit(code: int) -> str:
    """How a child ended, for people."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
