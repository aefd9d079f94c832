"""Pausing a user's pods for a moment, so that what is read of them is of one moment.

An agent that dies meanwhile must not leave them paused: who is about to be paused is written down before, and
the next agent lets them go on.
"""

import json
import threading
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
# Between tries to let them go on, while the engine is away.
THAW_EVERY_S = 1.0

log = structlog.get_logger(__name__)


class FrozenTooLong(Exception):
    """It could not be read within the time that a user may be held up. Nothing was committed."""


class Freezer:
    """Pauses and unpauses. One at a time."""

    def __init__(self, runtime: Runtime, note: Path) -> None:
        self._runtime = runtime
        self._note = note
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def frozen(self, container_ids: Sequence[str]) -> Iterator["Thaw"]:
        """None of these runs while the block does. Raises StepError where one cannot be paused."""
        with self._one_at_a_time:
            with disk_errors("write down who is paused"):
                self._write(container_ids)
            try:
                for container_id in container_ids:
                    self._runtime.pause(container_id)
                yield Thaw(time.monotonic() + FREEZE_S_MAX)
            finally:
                self._thaw_at_last()

    def _thaw_at_last(self) -> None:
        """Nobody else would let them go on before the agent is started again."""
        while True:
            try:
                return self.thaw()
            except EngineUnavailable as error:
                log.warning("freezer.cannot_thaw", why=error.message, consequence="pods stay paused")
                time.sleep(THAW_EVERY_S)

    def thaw(self) -> None:
        """Whoever was written down goes on; for the end of a freeze, and for the start of an agent.

        Raises EngineUnavailable: then somebody may still be paused.
        """
        for container_id in self._read():
            try:
                self._runtime.unpause(container_id)
            except EngineUnavailable:
                raise  # asked again when the engine is back
            except StepError as error:
                log.info("freezer.not_paused", container=container_id, why=error.message)
        self._forget()

    def _write(self, container_ids: Sequence[str]) -> None:
        write_atomically(self._note, json.dumps(list(container_ids)).encode())

    def _read(self) -> list[str]:
        try:
            return [str(container_id) for container_id in json.loads(self._note.read_text())]
        except (OSError, ValueError):
            return []

    def _forget(self) -> None:
        self._note.unlink(missing_ok=True)


class Thaw:
    """When the freeze has to end."""

    def __init__(self, at_s: float) -> None:
        self._at_s = at_s

    def check(self) -> None:
        """Raises FrozenTooLong."""
        if time.monotonic() > self._at_s:
            raise FrozenTooLong
