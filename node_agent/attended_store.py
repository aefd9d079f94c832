"""A store whose transfers ask, chunk by chunk, whether anybody still wants them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from node_agent.store import BlobWriter, Store, StoredBlob
from node_agent.store_around import StoreAround


class AttendedStore(StoreAround):
    """`check` raises when the transfer is no longer wanted: it ends there, and nothing of it is visible."""

    def __init__(self, store: Store, check: Callable[[], None]) -> None:
        super().__init__(store)
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
