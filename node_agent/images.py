"""Images of pods in the store and out of it: kept in the background, fetched where one is missing."""

import threading
from collections.abc import Callable
from functools import partial

import structlog

from node_agent.archive.errors import ArchiveError
from node_agent.archive.image_store import ImageUnkeepable, image_key, keep_image, load_tar, read_image
from node_agent.errors import StepError
from node_agent.runtime import Runtime
from node_agent.store import Store, StoreError

LOOK_EVERY_S = 300.0
_PINNED = "sha256:"

log = structlog.get_logger(__name__)


class Images:
    """One node's images and the store's. Safe to use from several threads."""

    def __init__(self, runtime: Runtime, store: Store) -> None:
        self._runtime = runtime
        self._store = store
        self._kept: set[str] = set()

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
        """Have an image of this node in the store; whether this call has written it.

        Raises StepError, StoreError, ArchiveError, ImageUnkeepable.
        """
        if image_id in self._kept:
            return False
        there = self._store.head(image_key(image_id)) is not None
        if not there:
            layers = self._runtime.images.layers_of(image_id)
            keep_image(self._store, image_id, layers, partial(self._runtime.images.save, image_id))
        self._kept.add(image_id)
        return not there

    def keep_all(self) -> int:
        """Of all containers here. What cannot be kept is told and left; how many were written."""
        written = 0
        for image_id in sorted({container.image_id for container in self._runtime.look().containers}):
            try:
                written += self.keep(image_id)
            except ImageUnkeepable as error:
                self._kept.add(image_id)
                log.warning("image.unkeepable", image=image_id, why=str(error))
            except (StepError, StoreError, ArchiveError) as error:
                log.warning("image.not_kept_yet", image=image_id, why=str(error))
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
