"""Which run of the agent this is: names in order of time, so that who reads two knows the later one.

The wall clock may be set back between two runs: a run's number is above the last one's in any case. A name
says which machine it is of, so that a machine that was restored from a copy is told from the original.
"""

import hashlib
import time
from contextlib import suppress
from pathlib import Path

import structlog

from node_agent.host import write_atomically
from state.boots import boot_id, number_of

NUMBER_BYTES_MAX = 20
MACHINE_DIGITS = 12
_KERNEL_BOOT = Path("/proc/sys/kernel/random/boot_id")

log = structlog.get_logger(__name__)


class Boots:
    """The runs of the agent on one data directory."""

    def __init__(self, path: Path) -> None:
        """The last run's number is in the file at `path`."""
        self._path = path

    def begin(self, after: str = "") -> str:
        """The name of a run that begins now: later than all on this disk, and than the run `after`.

        Where the file cannot be read or written, the wall clock and `after` have to do.
        """
        number = max(self._clock(), self._last() + 1, number_of(after) + 1)
        try:
            self._write(number)
        except OSError as error:
            log.warning("boot.not_noted", why=str(error), consequence="a clock set back delays the next run")
        return boot_id(number, self._machine())

    def _clock(self) -> int:
        return time.time_ns()

    def _machine(self) -> str:
        with suppress(OSError):
            return hashlib.sha256(kernel_boot().encode()).hexdigest()[:MACHINE_DIGITS]
        return ""

    def _last(self) -> int:
        with suppress(OSError, ValueError), self._path.open("rb") as file:
            return max(0, int(file.read(NUMBER_BYTES_MAX)))
        return 0

    def _write(self, number: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, b"%d" % number)


def kernel_boot() -> str:
    """Which boot of which machine this is; a copy of a machine's disk has another. Raises OSError."""
    return _KERNEL_BOOT.read_text().strip()
