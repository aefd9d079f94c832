"""Finding out, beside all other work, what the store can do, and clearing what nobody will finish there."""

import threading
from datetime import UTC, datetime, timedelta

import structlog

from node_agent.store import Store, StoreCapabilities, StoreError
from node_agent.uploads import UploadJournal

PROBE_RETRY_S = 30.0
# A node that was away for longer writes its half blobs from their start.
UNFINISHED_KEPT = timedelta(days=1)

log = structlog.get_logger(__name__)


class StoreWatch:
    """`found` is None until the store has answered. Not fatal: pods that are here can be used meanwhile."""

    def __init__(self) -> None:
        self.found: StoreCapabilities | None = None

    def start(self, store: Store, journal: UploadJournal, shown: str) -> None:
        """Probe in a thread of its own, until it succeeds; `shown` is the store's name for logs."""
        threading.Thread(
            target=self._run, args=(store, journal, shown), name="store-probe", daemon=True
        ).start()

    def _run(self, store: Store, journal: UploadJournal, shown: str) -> None:
        pause = threading.Event()
        while not self.look(store, shown):
            pause.wait(PROBE_RETRY_S)
        try:
            dropped = store.drop_unfinished(UNFINISHED_KEPT)
            journal.forget_older(datetime.now(UTC) - UNFINISHED_KEPT)
        except (StoreError, OSError) as error:
            log.warning("store.cannot_be_swept", store=shown, why=str(error))
        else:
            log.info("store.swept", dropped=dropped)

    def look(self, store: Store, shown: str) -> bool:
        """Say early what would fail late."""
        try:
            self.found = store.probe()
        except StoreError as error:
            log.error("store.unusable", store=shown, why=str(error))
            return False
        log.info(
            "store.usable",
            conditional_put=self.found.conditional_put,
            conditional_complete=self.found.conditional_complete,
        )
        return True
