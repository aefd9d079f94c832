"""Who uses the processors: a bench and its children, a server beside it, everybody else."""

import os
import time
from collections.abc import Callable
from pathlib import Path


def processor_s(step: Callable[[], object]) -> float:
    """Processor time of a step, its ended children counted."""
    before = sum(os.times()[:4])
    step()
    return sum(os.times()[:4]) - before


class Usage:
    """Processor time of this process, its children and the store's server, over what others had left."""

    def __init__(self, server_pid: int | None) -> None:
        self._server_pid = server_pid
        self.seconds = self.share = 0.0

    def __enter__(self) -> "Usage":
        self._before = (time.monotonic(), self._own(), busy_s())
        return self

    def __exit__(self, *_: object) -> None:
        began, own, busy = self._before
        self.seconds = time.monotonic() - began
        own = self._own() - own
        others = max(0.0, busy_s() - busy - own)
        self.share = own / ((os.cpu_count() or 1) * self.seconds - others)

    def _own(self) -> float:
        mine = os.times()
        server = _process_s(self._server_pid) if self._server_pid else 0.0
        return mine.user + mine.system + mine.children_user + mine.children_system + server


def busy_s() -> float:
    """Processor time of the whole machine since it started, idle and waiting for the disk not counted."""
    user, nice, system, _idle, _iowait, irq, softirq = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _process_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
