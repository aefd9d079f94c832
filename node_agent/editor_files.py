"""What our extension in the editor writes, and what it is told: small JSON files, one writer each.

Each window's extension writes a file of its own into the pod's shared memory, which no archive holds and
which ends with the container. The agent writes the warning beside the session secret, where the pod can only
read. All that comes from a pod is a stranger's word: bounded, checked, and no more than a hint.
"""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from node_agent.host import write_atomically
from node_agent.proc import FILE_BYTES_MAX, open_inside
from state.presence_wire import WORDS_CHARS_MAX, PodWarning

SPEECH_DIR = ("dev", "shm", "codepods")
WARNING_FILE = "warning.json"
WINDOWS_MAX = 32
# An extension writes at least this often, or it is gone with its window.
SPEAKS_EVERY_S = 5.0
SILENT_AFTER_S = 4 * SPEAKS_EVERY_S

Milliseconds = Annotated[float, Field(ge=0, le=1e14, allow_inf_nan=False)]


class EditorWord(BaseModel):
    """What one window says of itself. Times are milliseconds since 1970, by the node's clock."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at_ms: Milliseconds
    active_at_ms: Milliseconds
    # Tasks that will end by themselves; a watcher or a server never does.
    tasks: Annotated[int, Field(ge=0, le=1000)] = 0
    # The warning that somebody has answered with "keep it running".
    keep: Annotated[str, Field(max_length=WORDS_CHARS_MAX)] | None = None


def read_words(pid: int, now_s: float) -> tuple[EditorWord, ...]:
    """The windows that have spoken lately; none without our extension."""
    try:
        folder = open_inside(pid, *SPEECH_DIR)
    except OSError:
        return ()
    try:
        words = [word for name in _names(folder) if (word := _read(folder, name)) is not None]
    finally:
        os.close(folder)
    return tuple(word for word in words if abs(now_s - word.at_ms / 1000) <= SILENT_AFTER_S)


def _names(folder: int) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            for number, entry in enumerate(found):
                if number >= WINDOWS_MAX:
                    return
                yield entry.name
    except OSError:
        return


def _read(folder: int, name: str) -> EditorWord | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        return EditorWord.model_validate_json(os.read(file, FILE_BYTES_MAX))
    except (OSError, ValidationError):
        return None
    finally:
        os.close(file)


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning as the extension reads it. `stops_at_ms` is by the node's clock."""

    id: str
    stops_at_ms: int
    why: str
    can_extend: bool

    @classmethod
    def of(cls, warning: PodWarning, now_s: float) -> "Notice":
        """From the gateway's words, which count from now."""
        return cls(warning.id, int((now_s + warning.stops_in_s) * 1000), warning.why, warning.can_extend)


def write_notice(session_dir: str, notice: Notice | None) -> None:
    """Tell the editors of a pod; None: there is nothing to tell any more. Raises OSError."""
    path = Path(session_dir) / WARNING_FILE
    if notice is None:
        path.unlink(missing_ok=True)
        return
    said = {
        "id": notice.id,
        "stops_at_ms": notice.stops_at_ms,
        "why": notice.why,
        "can_extend": notice.can_extend,
    }
    write_atomically(path, json.dumps(said).encode(), mode=0o444)
