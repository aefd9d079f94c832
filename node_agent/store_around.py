"""A store around another: what a wrapper does not say otherwise is the inner store's."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from node_agent.store import LIST_LIMIT_MAX, BlobWriter, Store, StoreCapabilities, StoredEntry


class StoreAround(Store):
    """Passes every request on. A subclass says `of_user`, so that no request gets around it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open_writer(self, key: str) -> BlobWriter:
        """See Store."""
        return self._store.open_writer(key)

    def open_reader(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """See Store."""
        return self._store.open_reader(key)

    def put_manifest(self, key: str, data: bytes, *, only_if_absent: bool = True) -> None:
        """See Store."""
        self._store.put_manifest(key, data, only_if_absent=only_if_absent)

    def get(self, key: str, size_bytes_max: int) -> bytes:
        """See Store."""
        return self._store.get(key, size_bytes_max)

    def head(self, key: str) -> int | None:
        """See Store."""
        return self._store.head(key)

    def list(self, prefix: str, limit: int = LIST_LIMIT_MAX) -> tuple[str, ...]:
        """See Store."""
        return self._store.list(prefix, limit)

    def delete(self, key: str) -> None:
        """See Store."""
        self._store.delete(key)

    def entries(
        self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT_MAX
    ) -> tuple[StoredEntry, ...]:
        """See Store."""
        return self._store.entries(prefix, after=after, limit=limit)

    def delete_if_same(self, entry: StoredEntry) -> bool:
        """See Store."""
        return self._store.delete_if_same(entry)

    def clock(self) -> datetime:
        """See Store."""
        return self._store.clock()

    def drop_unfinished(self, older_than: timedelta) -> int:
        """See Store."""
        return self._store.drop_unfinished(older_than)

    def probe(self) -> StoreCapabilities:
        """See Store."""
        return self._store.probe()
