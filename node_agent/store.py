"""The port to the object store: a few verbs, and the only errors that leave its implementations.

Two implementations stand behind it, one contract suite holds both (tests/contract/test_store.py):
`directory_store.DirectoryStore` and `s3_store.S3Store`. `open_store.open_store` picks one by URL.

Correctness never rests on conditional puts alone, for not every store has them (see `StoreCapabilities`):
keys carry epoch and attempt, and the database's compare-and-set has the last word.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
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

    code = "store_access_denied"


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
class StoreCapabilities:
    """What a probe found. Without `conditional_put` two racing manifests may overwrite one another."""

    conditional_put: bool


class BlobWriter(Protocol):
    """A blob under way: bounded memory, and nothing visible under its key before `commit`.

    Leaving the `with` block without a commit aborts. All methods raise StoreError only.
    """

    def write(self, data: bytes) -> None:
        """Append. May block until earlier bytes are on their way."""

    def commit(self) -> StoredBlob:
        """Make the whole blob visible, durably, in one step. Replaces what was under the key."""
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

    def open_writer(self, key: str) -> BlobWriter:
        """Begin a blob. The caller picks a fresh key: an existing blob would be replaced at commit."""
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
        raise StoreConflict(f"{key} is already in the store with other content; it was left as it is")
