"""The port to the object store: a few verbs, and the only errors that leave its implementations.

Two implementations stand behind it, one contract suite holds both (tests/contract/test_store.py):
`directory_store.DirectoryStore` and `s3_store.S3Store`. `open_store.open_store` picks one by URL.

Correctness never rests on conditional puts alone, for not every store has them (see `StoreCapabilities`):
keys carry epoch and attempt, and the database's compare-and-set has the last word.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

KEY_LENGTH_MAX = 900  # S3 allows 1024 bytes; the bucket prefix needs some of them.
CHUNK_BYTES = 1 << 20
LIST_LIMIT_MAX = 1000
PROBE_PREFIX = "probe/"

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=@+-]*(/[A-Za-z0-9_][A-Za-z0-9._=@+-]*)*")


class StoreError(Exception):
    """Base of all store errors. `code` is stable; `retryable` says whether waiting alone may help."""

    code = "store_error"
    retryable = False


class StoreUnavailable(StoreError):
    """The store did not answer, or answered that it cannot now."""

    code = "store_unavailable"
    retryable = True


class StoreAccessDenied(StoreError):
    """The store knows us not, or forbids this: credentials or permissions must be changed."""

    code = "store_denied"


class StoreNotFound(StoreError):
    """Nothing under this key, or the bucket or directory itself is missing."""

    code = "store_not_found"


class StoreConflict(StoreError):
    """Something else is already under this key; it was left as it is."""

    code = "store_conflict"


class StoreFull(StoreError):
    """No room left in the store. Retryable: somebody may make room."""

    code = "store_full"
    retryable = True


class StoreTooLarge(StoreError):
    """What is under the key is larger than the caller allows."""

    code = "store_too_large"


class StoreKeyInvalid(StoreError, ValueError):
    """A key that no store of ours takes: absolute, with `..`, or outside the allowed characters."""

    code = "store_key_invalid"


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that a writer has made visible. `sha256` is hex, of exactly the bytes written."""

    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An object as a list shows it.

    `version` changes whenever it is written; times are by the store's clock.
    """

    key: str
    size_bytes: int
    modified_at: datetime
    version: str


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """What a probe found: whether the store refuses to replace an object where it is asked to.

    Without `conditional_put` two racing manifests, without `conditional_complete` two racing uploads of one
    key may overwrite one another; keys with epoch and attempt see to it that there are no two.
    """

    conditional_put: bool
    conditional_complete: bool


class BlobWriter(Protocol):
    """A blob under way: bounded memory, and nothing visible under its key before `commit`.

    Leaving the `with` block without a commit aborts; except after StoreUnavailable, when a store that keeps a
    journal leaves what has arrived to the retry. All methods raise StoreError only.
    """

    def write(self, data: bytes) -> None:
        """Append. May block until earlier bytes are on their way."""

    def commit(self) -> StoredBlob:
        """Make the whole blob visible, durably, in one step.

        Blobs are never replaced: the same bytes already there are success, others raise StoreConflict (where
        the store has no conditions: short of a race).
        """
        ...

    def abort(self) -> None:
        """Drop what was written. Safe to repeat, and after a commit it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class Store(Protocol):
    """Blobs and manifests under keys. Safe to use from several threads; raises StoreError only."""

    def of_user(self, user_id: str) -> "Store":
        """The same store, to write what belongs to this user: a sealed one has a key for each."""
        del user_id
        return self

    def open_writer(self, key: str) -> BlobWriter:
        """Begin a blob, or go on with one that this node has begun under this key and not finished."""
        ...

    def open_reader(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """The blob's bytes in chunks of at most a few MiB. Raises StoreNotFound on entering."""
        ...

    def put_manifest(self, key: str, data: bytes, *, only_if_absent: bool = True) -> None:
        """Put a small object in one step. With `only_if_absent`, the same bytes already there are success,
        other bytes raise StoreConflict (where the store has no conditional puts: short of a race)."""

    def get(self, key: str, size_bytes_max: int) -> bytes:
        """The whole small object. Raises StoreTooLarge beyond the bound, before reading on."""
        ...

    def head(self, key: str) -> int | None:
        """Size in bytes, or None where nothing is."""
        ...

    def list(self, prefix: str, limit: int = LIST_LIMIT_MAX) -> tuple[str, ...]:
        """The first `limit` keys that start with the prefix, in byte order. Unfinished writes do not show."""
        ...

    def delete(self, key: str) -> None:
        """Remove; nothing there is success."""

    def entries(
        self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT_MAX
    ) -> tuple[StoredEntry, ...]:
        """As `list`, from the first key after `after`, with size, time and version.

        Of a sealed store, as sealed.
        """
        ...

    def delete_if_same(self, entry: StoredEntry) -> bool:
        """Remove what is under the key if it is still this; whether it is gone. Another object stays."""
        ...

    def clock(self) -> datetime:
        """The time now, by the clock that `modified_at` is told by."""
        ...

    def drop_unfinished(self, older_than: timedelta) -> int:
        """Drop unfinished writes, anybody's, in which nothing has happened for so long; how many."""
        ...

    def probe(self) -> StoreCapabilities:
        """Write, read and remove a scratch key. Raises what would fail later; finds what the store can."""
        ...


def check_key(key: str) -> str:
    """The key itself if every store takes it; raises StoreKeyInvalid otherwise.

    Segments start with a letter, digit or `_`: so no `..`, no hidden names, nothing absolute.
    """
    if len(key) > KEY_LENGTH_MAX or not _KEY.fullmatch(key):
        raise StoreKeyInvalid(
            f"store key {key[:80]!r} is not allowed: use up to {KEY_LENGTH_MAX} characters "
            "of A-Z a-z 0-9 . _ = @ + - in segments that start with a letter, digit or _"
        )
    return key


def settle_conflict(store: Store, key: str, data: bytes) -> None:
    """After a refused conditional put: return if the same bytes are there, raise StoreConflict if others."""
    try:
        there = store.get(key, size_bytes_max=len(data))
    except StoreTooLarge:
        there = None
    if there != data:
        raise other_content(key)


def other_content(key: str) -> StoreConflict:
    """The error of a write that would have replaced something."""
    return StoreConflict(f"{key} is already in the store with other content; it was left as it is")


def check_same(key: str, there: Iterable[bytes], size_bytes: int, sha256: str) -> None:
    """Raise StoreConflict unless what is there has this size and digest; reads all of it."""
    running, read_bytes = hashlib.sha256(), 0
    for chunk in there:
        running.update(chunk)
        read_bytes += len(chunk)
    if read_bytes != size_bytes or running.hexdigest() != sha256:
        raise other_content(key)
