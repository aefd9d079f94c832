"""Keeps files level with the database and the clock, again and again, for as long as the program serves."""

import threading
from collections.abc import Callable

import structlog

from api.access_token import KeyringError
from state.database import DatabaseUnavailable

# With the 5 s that nginx keeps a yes, and the second in which sockets are cut: within 10 s.
LEVEL_EVERY_S = 2.0
_JOIN_S = 10.0

log = structlog.get_logger()


class LevelThread:
    """Calls `level` until it is stopped. What goes wrong is logged, and tried again."""

    def __init__(self, name: str, level: Callable[[], None]) -> None:
        self._name = name
        self._level = level
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; takes at most `_JOIN_S`. The files stay: nginx goes on without us."""
        self._stopping.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._level()
            except (OSError, KeyringError, DatabaseUnavailable) as error:
                log.warning("files are not level", files=self._name, error=str(error))
            self._stopping.wait(LEVEL_EVERY_S)
