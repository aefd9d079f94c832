"""Which run of the agent this is: names that are in order of time, so that who reads two knows the later one.

The wall clock may be set back between two runs: a run's number is above the last one's in any case.
"""

import time
import uuid
from contextlib import suppress
from pathlib import Path

import structlog

from node_agent.host import write_atomically

NUMBER_BYTES_MAX = 20

log = structlog.get_logger(__name__)


def new_boot_id(path: Path) -> str:
    """For a run that begins now; the last one's number is in the file at `path`.

    Where that cannot be read or written, the wall clock has to do.
    """
    number = max(time.time_ns(), _last(path) + 1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, b"%d" % number)
    except OSError as error:
        log.warning(
            "boot.not_noted", why=str(error), consequence="a clock that is set back can shut this out"
        )
    return f"{number:020d}-{uuid.uuid4().hex[:8]}"


def _last(path: Path) -> int:
    with suppress(OSError, ValueError), path.open("rb") as file:
        return max(0, int(file.read(NUMBER_BYTES_MAX)))
    return 0
