"""Pausing a user's pods for a moment, so that what is read of them is of one moment.

An agent that dies meanwhile must not leave them paused: who is about to be paused is written down before, and
the next agent lets them go on.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from node_agent.errors import EngineUnavailable, StepError
from node_agent.host import disk_errors, write_atomically
from node_agent.runtime import Runtime

# A terminal that hangs for longer is noticed; the editor's connections bear many times as much.
FREEZE_S_MAX = 3.0
FROZEN = "frozen.json"

log = structlog.get_logger(__name__)


class FrozenTooLong(Exception):
    """It could not be read within the time that a user may be held up. Nothing was committed."""


class Freezer:
    """Pauses and unpauses. One at a time."""

    def __init__(self, runtime: Runtime, note: Path) -> None:
        self._runtime = runtime
        self._note = note

    @contextmanager
    def frozen(self, container_ids: Sequence[str]) -> Iterator["Thaw"]:
        """None of these runs while the block does. Raises StepError where one cannot be paused."""
        with disk_errors("write down who is paused"):
            write_atomically(self._note, json.dumps(list(container_ids)).encode())
        try:
            for container_id in container_ids:
                self._runtime.pause(container_id)
            yield Thaw(time.monotonic() + FREEZE_S_MAX)
        finally:
            self.thaw()

    def thaw(self) -> None:
        """Whoever was written down goes on; for the end of a freeze, and for the start of an agent.

        Raises EngineUnavailable: then somebody may still be paused.
        """
        try:
            noted = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return
        for container_id in noted:
            try:
                self._runtime.unpause(str(container_id))
            except EngineUnavailable:
                raise  # asked again when the engine is back
            except StepError as error:
                log.info("freezer.not_paused", container=container_id, why=error.message)
        self._note.unlink(missing_ok=True)


class Thaw:
    """When the freeze has to end."""

    def __init__(self, at_s: float) -> None:
        self._at_s = at_s

    def check(self) -> None:
        """Raises FrozenTooLong."""
        if time.monotonic() > self._at_s:
            raise FrozenTooLong
