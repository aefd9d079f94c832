"""Processes that are in a container's cgroup, and that its engine knows nothing of."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def ghost_of(container_id: str, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that goes on writing to the file until it is killed. It has begun."""
    root = CGROUPS / "pids" if (CGROUPS / "pids").is_dir() else CGROUPS
    cgroup = root / container_id
    cgroup.mkdir()
    script = f'echo $$ >{cgroup}/cgroup.procs; echo; while :; do echo more >>"$0"; sleep 0.01; done'
    process = subprocess.Popen(["sh", "-c", script, str(file)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        _remove(cgroup)


def _remove(cgroup: Path) -> None:
    """The `sleep` of a shell that was killed is in it for a moment longer."""
    while cgroup.exists():
        for line in (cgroup / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(line), signal.SIGKILL)
        with suppress(OSError):  # busy
            cgroup.rmdir()
        time.sleep(0.01)
