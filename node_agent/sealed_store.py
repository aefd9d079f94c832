"""A store whose contents only holders of the master key can read: a wrapper around any other.

Sizes, digests and bytes are those of what is inside, so nobody above knows of it. Names are not hidden.
"""

import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import TracebackType

from node_agent.data_keys import KEYS_PREFIX, DataKeys, scope_of
from node_agent.sealing import (
    CHUNK_BYTES,
    HEADER_BYTES,
    SEALED_CHUNK_BYTES,
    Seal,
    opened_size,
    read_header,
    sealed_size,
)
from node_agent.store import (
    PROBE_PREFIX,
    BlobWriter,
    Store,
    StoreCapabilities,
    StoredBlob,
    StoreTooLarge,
    check_key,
)
from node_agent.store_around import StoreAround

# Labs are put there by people, with their own tools; data keys are wrapped already; whose the store is, is no
# secret, and must be read to know whether it may be written to.
PLAIN_PREFIXES = ("labs/", KEYS_PREFIX, PROBE_PREFIX, "installation/")


class SealedStore(StoreAround):
    """Writes with the data key of one user, or of nobody; opens what any data key here has sealed."""

    def __init__(self, store: Store, keys: DataKeys, user_id: str = "") -> None:
        super().__init__(store)
        self._keys = keys
        self._scope = scope_of(user_id)

    def of_user(self, user_id: str) -> Store:
        """See Store."""
        return SealedStore(self._store, self._keys, user_id)

    def open_writer(self, key: str) -> BlobWriter:
        """See Store."""
        if _is_plain(key):
            return self._store.open_writer(key)
        data_key = self._keys.for_writing(self._scope)
        return _SealedWriter(self._store.open_writer(key), Seal(data_key, key), data_key.header)

    @contextmanager
    def open_reader(self, key: str) -> Iterator[Iterator[bytes]]:
        """See Store. A chunk is handed out only once its seal was found whole."""
        with self._store.open_reader(key) as sealed:
            yield sealed if _is_plain(key) else self._opened(sealed, key)

    def put_manifest(self, key: str, data: bytes, *, only_if_absent: bool = True) -> None:
        """See Store. Sealing is deterministic: the same bytes again are the same sealed bytes."""
        self._store.put_manifest(key, self._sealed(data, key), only_if_absent=only_if_absent)

    def get(self, key: str, size_bytes_max: int) -> bytes:
        """See Store."""
        if _is_plain(key):
            return self._store.get(key, size_bytes_max)
        data = b"".join(self._opened(iter((self._store.get(key, sealed_size(size_bytes_max)),)), key))
        if len(data) > size_bytes_max:
            raise StoreTooLarge(f"{key} has more than the {size_bytes_max} bytes that are read of it")
        return data

    def head(self, key: str) -> int | None:
        """See Store. Raises SealBroken for a size that nothing sealed can have."""
        size_bytes = self._store.head(key)
        return size_bytes if size_bytes is None or _is_plain(key) else opened_size(size_bytes, key)

    def probe(self) -> StoreCapabilities:
        """See Store. Also opens a data key: a master key that is not the right one is told here."""
        found = self._store.probe()
        self._keys.for_writing(self._scope)
        return found

    def _sealed(self, data: bytes, key: str) -> bytes:
        if _is_plain(check_key(key)):
            return data
        data_key = self._keys.for_writing(self._scope)
        seal = Seal(data_key, key)
        starts = range(0, max(1, len(data)), CHUNK_BYTES)
        chunks = (
            seal.close(data[at : at + CHUNK_BYTES], number, last=at == starts[-1])
            for number, at in enumerate(starts)
        )
        return data_key.header + b"".join(chunks)

    def _opened(self, sealed: Iterator[bytes], key: str) -> Generator[bytes, None, None]:
        held, seal, number = bytearray(), None, 0
        for piece in sealed:
            held += piece
            if seal is None and len(held) >= HEADER_BYTES:
                seal = self._seal_of(bytes(held[:HEADER_BYTES]), key)
                del held[:HEADER_BYTES]
            # What may be the last chunk is held back until it is known to be none.
            while seal is not None and len(held) > SEALED_CHUNK_BYTES:
                yield seal.open(bytes(held[:SEALED_CHUNK_BYTES]), number, last=False)
                del held[:SEALED_CHUNK_BYTES]
                number += 1
        last = (seal or self._seal_of(bytes(held), key)).open(bytes(held), number, last=True)
        if last:
            yield last

    def _seal_of(self, header: bytes, key: str) -> Seal:
        return Seal(self._keys.open(*read_header(header, key)), key)


class _SealedWriter(BlobWriter):
    def __init__(self, inner: BlobWriter, seal: Seal, header: bytes) -> None:
        self._inner = inner
        self._seal = seal
        self._header = header
        self._held = bytearray()
        self._number = 0
        self._running = hashlib.sha256()
        self._size_bytes = 0

    def write(self, data: bytes) -> None:
        self._running.update(data)
        self._size_bytes += len(data)
        self._held += data
        while len(self._held) > CHUNK_BYTES:
            self._pass_on(last=False)

    def commit(self) -> StoredBlob:
        self._pass_on(last=True)
        stored = self._inner.commit()
        return StoredBlob(stored.key, self._size_bytes, self._running.hexdigest())

    def abort(self) -> None:
        self._inner.abort()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)

    def _pass_on(self, *, last: bool) -> None:
        chunk = bytes(self._held[:CHUNK_BYTES])
        del self._held[:CHUNK_BYTES]
        sealed = self._seal.close(chunk, self._number, last=last)
        self._inner.write(self._header + sealed if self._number == 0 else sealed)
        self._number += 1


def _is_plain(key: str) -> bool:
    return key.startswith(PLAIN_PREFIXES)
