"""Images of pods in the store and out of it: kept in the background, fetched where one is missing."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from node_agent.archive.errors import ArchiveError
from node_agent.archive.image_store import (
    ImageUnkeepable,
    keep_image,
    load_tar,
    missing_layers,
    read_image,
    renew,
)
from node_agent.errors import Later, StepError
from node_agent.runtime import Runtime
from node_agent.store import Store, StoreError

LOOK_EVERY_S = 300.0
# Far below the day after which what nobody has written to may be taken for forgotten.
RENEW_EVERY_S = 6 * 3600.0
# An image that does not come must not keep a node's workers from everything else (LAW 12).
COMING_AT_ONCE_MAX = 4
_PINNED = "sha256:"

log = structlog.get_logger(__name__)


class Images:
    """One node's images and the store's. Safe to use from several threads."""

    def __init__(self, runtime: Runtime, store: Store) -> None:
        self._runtime = runtime
        self._store = store
        # Only the image keeper's thread changes it.
        self._kept_at_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._owed: set[str] = set()
        self._coming = 0

    @contextmanager
    def lane(self) -> Iterator[None]:
        """One image may come, from wherever, while the block runs. Raises Later where too many do."""
        with self._lock:
            if self._coming >= COMING_AT_ONCE_MAX:
                raise Later
            self._coming += 1
        try:
            yield
        finally:
            with self._lock:
                self._coming -= 1

    def has_lane(self) -> bool:
        """One more image may come now."""
        with self._lock:
            return self._coming < COMING_AT_ONCE_MAX

    def fetch(self, image_id: str, note: Callable[[int, int], None]) -> bool:
        """Load a pinned image from the store, as far as its layers are not here. False where it is not kept.

        Raises StepError: of the engine, or `image_corrupt` for what the store has.
        """
        if not image_id.startswith(_PINNED):
            return False
        try:
            manifest = read_image(self._store, image_id)
            if manifest is None:
                return False
            chains = self._runtime.images.chains()
            self._runtime.images.load(load_tar(self._store, manifest, chains, note))
        except (ArchiveError, StoreError) as error:
            raise StepError(f"Could not load the image from the store: {error}.", code=error.code) from error
        return self._runtime.image_id(image_id) == image_id

    def keep(self, image_id: str) -> bool:
        """Have an image of this node in the store, whole, and seen there as one that somebody has; whether
        this call has written any of it.

        Raises StepError, StoreError, ArchiveError, ImageUnkeepable.
        """
        if self._is_fresh(image_id):
            return False
        manifest = read_image(self._store, image_id)
        if manifest is not None:
            # Renewed first: from now on no layer that it names is cleared away.
            renew(self._store, manifest)
        whole = manifest is not None and not missing_layers(self._store, manifest)
        if not whole:
            layers = self._runtime.images.layers_of(image_id)
            keep_image(self._store, image_id, layers, partial(self._runtime.images.save, image_id))
        self._kept_at_s[image_id] = time.monotonic()
        return not whole

    def _is_fresh(self, image_id: str) -> bool:
        kept_at_s = self._kept_at_s.get(image_id)
        return kept_at_s is not None and time.monotonic() - kept_at_s < RENEW_EVERY_S

    def owe(self, image_id: str) -> None:
        """An archive is made of it, and its container goes: it is to be kept, though nothing here has it."""
        with self._lock:
            self._owed.add(image_id)

    def keep_all(self) -> int:
        """Of all containers here, and of those that went before they were looked at. What cannot be kept is
        told and left; how many were written."""
        written = 0
        with self._lock:
            owed = frozenset(self._owed)
        here = {container.image_id for container in self._runtime.look().containers}
        for image_id in sorted(here | owed):
            try:
                written += self.keep(image_id)
            except ImageUnkeepable as error:
                self._kept_at_s[image_id] = time.monotonic()
                log.warning("image.unkeepable", image=image_id, why=str(error))
            except (StepError, StoreError, ArchiveError) as error:
                log.warning("image.not_kept_yet", image=image_id, why=str(error))
                continue
            with self._lock:
                self._owed.discard(image_id)
        return written

    def keep_on(self, after_s: float, stopping: threading.Event) -> None:
        """Look again and again, until stopping."""
        wait_s = after_s
        while not stopping.wait(wait_s):
            wait_s = LOOK_EVERY_S
            try:
                self.keep_all()
            except StepError as error:
                log.debug("image.engine_away", why=error.message)
