"""A store whose transfers ask, chunk by chunk, whether anybody still wants them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType

from node_agent.store import (
    LIST_LIMIT_MAX,
    BlobWriter,
    Store,
    StoreCapabilities,
    StoredBlob,
    StoredEntry,
)


class AttendedStore(Store):
    """`check` raises when the transfer is no longer wanted: it ends there, and nothing of it is visible."""

    def __init__(self, store: Store, check: Callable[[], None]) -> None:
        self._store = store
        self._check = check

    def of_user(self, user_id: str) -> Store:
        """See Store."""
        return AttendedStore(self._store.of_user(user_id), self._check)

    def open_writer(self, key: str) -> BlobWriter:
        """See Store."""
        self._check()
        return _AttendedWriter(self._store.open_writer(key), self._check)

    @contextmanager
    def open_reader(self, key: str) -> Iterator[Iterator[bytes]]:
        """See Store."""
        self._check()
        with self._store.open_reader(key) as chunks:
            yield self._attended(chunks)

    def _attended(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._check()
            yield chunk

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


class _AttendedWriter(BlobWriter):
    def __init__(self, inner: BlobWriter, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check

    def write(self, data: bytes) -> None:
        self._check()
        self._inner.write(data)

    def commit(self) -> StoredBlob:
        self._check()
        return self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)
