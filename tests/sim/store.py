"""The object store in memory, behind production's port; its dict is the truth."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from node_agent.store import (
    LIST_LIMIT_MAX,
    BlobWriter,
    Store,
    StoreCapabilities,
    StoreConflict,
    StoredBlob,
    StoredEntry,
    StoreNotFound,
    StoreTooLarge,
    StoreUnavailable,
    check_key,
    settle_conflict,
)
from tests.sim.machine import at
from tests.sim.scheduler import Scheduler

T = TypeVar("T")
SLOW_S = 10.0


class SimStore(Store):
    """Exact conditional puts, atomic commits, and nothing half visible, as both real stores have it."""

    def __init__(self, scheduler: Scheduler, changed: Callable[[str, str], None]) -> None:
        self.objects: dict[str, bytes] = {}
        self.digests: dict[str, str] = {}
        self.trouble: dict[str, float] = {}
        self.modified_s: dict[str, float] = {}
        # What was there, and was cleared away.
        self.buried: dict[str, bytes] = {}
        # What was there before it rotted.
        self.rotten: dict[str, bytes] = {}
        self.mutations = 0
        self._scheduler = scheduler
        self._changed = changed

    def call(self, port: str, key: str, effect: Callable[[], T], *, mutates: bool = False) -> T:
        """One request to the store."""

        def reached() -> T:
            if self._has("store_down"):
                raise StoreUnavailable("the store does not answer")
            return effect()

        if self._has("store_slow"):
            self._scheduler.sleep(SLOW_S)

        return self._scheduler.call(f"store.{port}", reached, StoreUnavailable, mutates=mutates, detail=key)

    def _has(self, trouble: str) -> bool:
        return self._scheduler.now_s < self.trouble.get(trouble, 0.0)

    def put(self, kind: str, key: str, data: bytes) -> None:
        """The effect of any put."""
        self.objects[key] = data
        self.digests[key] = hashlib.sha256(data).hexdigest()
        self.modified_s[key] = self._scheduler.now_s
        self.mutations += 1
        self._changed(kind, key)

    def rot(self, key: str) -> None:
        """One byte is another from now on."""
        self.rotten[key] = data = self.objects[key]
        self._become(key, bytes([data[0] ^ 1]) + data[1:] if data else b"?")

    def mend(self, key: str) -> None:
        """It is again what it was."""
        self._become(key, self.rotten.pop(key))

    def _become(self, key: str, data: bytes) -> None:
        self.objects[key], self.digests[key] = data, hashlib.sha256(data).hexdigest()

    def open_writer(self, key: str) -> BlobWriter:
        """See Store."""
        self.call("open", check_key(key), lambda: None)
        return _Writer(self, key)

    @contextmanager
    def open_reader(self, key: str) -> Iterator[Iterator[bytes]]:
        """See Store; the blob comes in two halves."""
        yield self._halves(self.get(key, 1 << 40))

    def _halves(self, data: bytes) -> Iterator[bytes]:
        half = len(data) // 2
        yield data[:half]
        self.call("read", "", lambda: None)
        yield data[half:]

    def put_manifest(self, key: str, data: bytes, *, only_if_absent: bool = True) -> None:
        """See Store."""

        def effect() -> bool:
            if only_if_absent and key in self.objects:
                return False
            self.put("manifest", key, data)
            return True

        if not self.call("put_manifest", check_key(key), effect, mutates=True):
            settle_conflict(self, key, data)

    def get(self, key: str, size_bytes_max: int) -> bytes:
        """See Store."""

        def effect() -> bytes:
            if key not in self.objects:
                raise StoreNotFound(f"nothing under {key}")
            if len(self.objects[key]) > size_bytes_max:
                raise StoreTooLarge(key)
            return self.objects[key]

        return self.call("get", check_key(key), effect)

    def head(self, key: str) -> int | None:
        """See Store."""
        return self.call(
            "head", check_key(key), lambda: len(self.objects[key]) if key in self.objects else None
        )

    def list(self, prefix: str, limit: int = LIST_LIMIT_MAX) -> tuple[str, ...]:
        """See Store."""
        found = sorted(key for key in self.objects if key.startswith(prefix))
        return self.call("list", prefix, lambda: tuple(found[:limit]))

    def delete(self, key: str) -> None:
        """See Store."""

        def effect() -> None:
            self.objects.pop(key, None)
            self.mutations += 1
            self._changed("delete", key)

        self.call("delete", check_key(key), effect, mutates=True)

    def entries(
        self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT_MAX
    ) -> tuple[StoredEntry, ...]:
        """See Store."""

        def effect() -> tuple[StoredEntry, ...]:
            keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)[:limit]
            return tuple(map(self._entry, keys))

        return self.call("entries", prefix, effect)

    def _entry(self, key: str) -> StoredEntry:
        return StoredEntry(key, len(self.objects[key]), at(self.modified_s[key]), self.digests[key])

    def delete_if_same(self, entry: StoredEntry) -> bool:
        """See Store."""

        def effect() -> bool:
            if entry.key in self.objects and self._entry(entry.key) == entry:
                self.buried[entry.key] = self.objects.pop(entry.key)
                del self.digests[entry.key]
                self.mutations += 1
                self._changed("delete", entry.key)
            return entry.key not in self.objects

        return self.call("delete_if_same", entry.key, effect, mutates=True)

    def clock(self) -> datetime:
        """See Store."""
        return at(self._scheduler.now_s)

    def probe(self) -> StoreCapabilities:
        """See Store."""
        return StoreCapabilities(conditional_put=True, conditional_complete=True)

    def drop_unfinished(self, older_than: timedelta) -> int:
        """See Store: nothing unfinished is left here."""
        return 0


class _Writer(BlobWriter):
    def __init__(self, store: SimStore, key: str) -> None:
        self._store = store
        self._key = key
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        self._store.call("write", self._key, lambda: self._data.extend(data))

    def commit(self) -> StoredBlob:
        data = bytes(self._data)

        def effect() -> None:
            if self._store.objects.get(self._key, data) != data:
                raise StoreConflict(f"{self._key} is already in the store with other content")
            self._store.put("blob", self._key, data)

        self._store.call("commit", self._key, effect, mutates=True)
        return StoredBlob(self._key, len(data), hashlib.sha256(data).hexdigest())

    def abort(self) -> None:
        self._data.clear()
