"""A store on which the process ends before or after any one of its effects."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from node_agent.directory_store import DirectoryStore
from node_agent.store import BlobWriter, StoredBlob


class Crash(BaseException):
    """The process ends here."""


class Tripwire(DirectoryStore):
    """A directory store that writes down its effects, and crashes before or after one of them."""

    def __init__(self, root: Path, crash_at: int = -1, *, after: bool = False) -> None:
        super().__init__(root)
        self.effects: list[str] = []
        self._crash_at = crash_at
        self._after = after

    @contextmanager
    def effect(self, name: str) -> Iterator[None]:
        """One thing that changes or reads the store."""
        trips = len(self.effects) == self._crash_at
        self.effects.append(name)
        if trips and not self._after:
            raise Crash
        yield
        if trips:
            raise Crash

    def open_writer(self, key: str) -> BlobWriter:
        with self.effect("open"):
            return _TripwireWriter(self, super().open_writer(key))

    def open_reader(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        with self.effect("read back"):
            return super().open_reader(key)

    def put_manifest(self, key: str, data: bytes, *, only_if_absent: bool = True) -> None:
        with self.effect("manifest"):
            super().put_manifest(key, data, only_if_absent=only_if_absent)


class _TripwireWriter(BlobWriter):
    def __init__(self, store: Tripwire, inner: BlobWriter) -> None:
        self._store = store
        self._inner = inner

    def write(self, data: bytes) -> None:
        with self._store.effect("write"):
            self._inner.write(data)

    def commit(self) -> StoredBlob:
        with self._store.effect("commit"):
            return self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()
