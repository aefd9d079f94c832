"""What the supervisor did and does, as one JSON object a line: `up` shows it, `status` and people read it."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

JOURNAL_BYTES_MAX = 1 << 20
Entry = dict[str, Any]


class Kind(StrEnum):
    """What an entry tells."""

    STEP = "step"  # step, text: began
    DETAIL = "detail"  # step, text: how far it is
    STEP_DONE = "step_done"  # step, took_s
    PROBLEM = "problem"  # text: start-up ended with this
    READY = "ready"  # everything answers
    STARTED = "started"  # program, pid
    ENDED = "ended"  # program, how, again_in_s
    STOPPING = "stopping"
    STOPPED = "stopped"


class Journal:
    """Appends entries. One writer; readers follow the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A new run begins a new journal: followers of the old one have gone with it.
        path.write_text("")

    def tell(self, kind: Kind, **fields: object) -> None:
        """Append one entry with the time."""
        entry = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind, **fields}
        # Programs must run on when the disk is full, and so must who keeps them running.
        with contextlib.suppress(OSError):
            if self._path.stat().st_size > JOURNAL_BYTES_MAX:
                self._path.replace(self._path.with_suffix(".1.jsonl"))
            with self._path.open("a") as file:
                file.write(json.dumps(entry) + "\n")


class Follower:
    """Reads entries as they come, also across the change to a new file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0

    def skip_to_end(self) -> None:
        """Only what comes from now on."""
        for _ in self.new():
            pass

    def new(self) -> Iterator[Entry]:
        """The whole entries since the last call."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            status = self._path.stat()
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._inode, self._offset = status.st_ino, 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                yield json.loads(line)
