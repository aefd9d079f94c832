"""What the kernel tells of a running pod: its connections, its CPU time, the jobs in its terminals.

Read from outside, through the pod's first process: nothing is run in the pod and no connection is made to it.
A pod that ends meanwhile reads as one that has nothing.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
PROCESSES_READ_MAX = 2000
FILE_BYTES_MAX = 4096
_ESTABLISHED = "01"
_NS_PER_US = 1000


def connections(pid: int, port: int, proc: Path = PROC) -> int:
    """Established TCP connections to a port of the pod, from outside the pod."""
    tables = (proc / str(pid) / "net" / name for name in ("tcp", "tcp6"))
    return sum(1 for line in _lines(tables) if _is_from_outside(line.split(), port))


def _lines(tables: Iterable[Path]) -> Iterator[str]:
    for table in tables:
        with suppress(OSError):
            yield from table.read_text().splitlines()[1:]


def _is_from_outside(columns: list[str], port: int) -> bool:
    if len(columns) < 4 or columns[3] != _ESTABLISHED:
        return False
    return columns[1].endswith(f":{port:04X}") and not _is_loopback(columns[2].partition(":")[0])


def _is_loopback(address: str) -> bool:
    """As the kernel writes it: groups of four bytes, each the other way round."""
    mapped = address.removeprefix("0000000000000000FFFF0000")
    return (len(mapped) == 8 and mapped.endswith("7F")) or address == "0" * 24 + "01000000"


@dataclass(frozen=True, slots=True)
class Cgroup:
    """Where the CPU time of a pod is counted. `version` 1 counts in nanoseconds, 2 in microseconds."""

    path: Path
    version: int

    def cpu_ns(self) -> int | None:
        """CPU time that all its processes have used so far, nanoseconds; None where it cannot be read."""
        try:
            if self.version == 1:
                return int((self.path / "cpuacct.usage").read_text())
            fields = dict(line.split() for line in (self.path / "cpu.stat").read_text().splitlines())
            return int(fields["usage_usec"]) * _NS_PER_US
        except (OSError, ValueError, KeyError):
            return None

    def processes(self) -> list[int]:
        """The processes in it and below it, as this node numbers them; at most `PROCESSES_READ_MAX`."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.path):
            with suppress(OSError, ValueError):
                found += [int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()]
            if len(found) >= PROCESSES_READ_MAX:
                break
        return found[:PROCESSES_READ_MAX]


def cgroup_of(pid: int, container_id: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Cgroup | None:
    """The container's own cgroup: a first process may have put itself into one below.

    None where the process is in none of the container's any more: one that is ending is counted at the root,
    whose figures are the whole machine's.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    found = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    for _, controllers, path in found:
        if "cpuacct" in controllers.split(","):
            return _named(cgroups / "cpuacct" / path.lstrip("/"), container_id, 1)
    unified = next((path for number, _, path in found if number == "0"), None)
    return None if unified is None else _named(cgroups / unified.lstrip("/"), container_id, 2)


def _named(path: Path, container_id: str, version: int) -> Cgroup | None:
    named = [one for one in (path, *path.parents) if container_id in one.name]
    return Cgroup(named[-1], version) if named else None


@dataclass(frozen=True, slots=True)
class Processes:
    """What the processes of a pod do at one moment.

    `jobs` run in the foreground of a terminal, shells at their prompts not counted; `runnable` have a CPU or
    wait for one: on a crowded machine work may get so little CPU time that it looks like none.
    """

    jobs: int = 0
    runnable: int = 0


def processes(pids: Iterable[int], proc: Path = PROC) -> Processes:
    """Look at these processes."""
    stats = [_stat(proc / str(pid) / "stat") for pid in pids]
    return Processes(
        jobs=sum(1 for stat in stats if _is_job(stat)), runnable=sum(1 for stat in stats if stat[:1] == ["R"])
    )


def _stat(path: Path) -> list[str]:
    """The fields after the name, which may itself hold spaces and brackets."""
    try:
        return path.read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _is_job(stat: list[str]) -> bool:
    if len(stat) < 6:
        return False
    _, _, group, session, terminal, foreground = stat[:6]
    return terminal != "0" and foreground == group and group != session


def open_inside(pid: int, *path: str, proc: Path = PROC) -> int:
    """A file descriptor of a path in the pod, no part of which may be a link. Raises OSError.

    What is in a pod belongs to strangers: a link there may name anything on this node.
    """
    folder = os.open(proc / str(pid) / "root", os.O_RDONLY | os.O_DIRECTORY)
    for name in path:
        try:
            # Not blocking: it may be a pipe that nobody writes to.
            below = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def modified_at(pid: int, *path: str, proc: Path = PROC) -> float | None:
    """When a file in the pod was written last, seconds since 1970; None where it is not there."""
    try:
        descriptor = open_inside(pid, *path, proc=proc)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
