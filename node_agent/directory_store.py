"""The store port on a directory: one machine, a mounted disk, or a network file system with hard links."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from node_agent.store import (
    CHUNK_BYTES,
    LIST_LIMIT_MAX,
    PROBE_PREFIX,
    BlobWriter,
    Store,
    StoreAccessDenied,
    StoreCapabilities,
    StoreConflict,
    StoredBlob,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreTooLarge,
    StoreUnavailable,
    check_key,
    settle_conflict,
)

# Unfinished writes; no key can start with a dot, so they never show.
INCOMING = ".incoming"


class DirectoryStore(Store):
    """Each key is a file below the directory, made visible by link or rename when it is whole and on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open_writer(self, key: str) -> BlobWriter:
        """See Store. The bytes go to a file of their own first."""
        path = self._path(key)
        with _told(f"begin {key} in {self._root}"):
            return _FileWriter(key, path, self._new_file())

    @contextmanager
    def open_reader(self, key: str) -> Iterator[Iterator[bytes]]:
        """See Store."""
        path = self._path(key)
        with _told(f"read {key} in {self._root}"):
            file = path.open("rb", buffering=0)
        with file:
            yield _chunks(file, f"read {key} in {self._root}")

    def put_manifest(self, key: str, data: bytes, *, only_if_absent: bool = True) -> None:
        """See Store. Exact: `link` fails where a name exists."""
        path = self._path(key)
        if self._place(path, data, replace=not only_if_absent):
            return
        settle_conflict(self, key, data)

    def get(self, key: str, size_bytes_max: int) -> bytes:
        """See Store."""
        path = self._path(key)
        with _told(f"read {key} in {self._root}"), path.open("rb") as file:
            data = file.read(size_bytes_max + 1)
        if len(data) > size_bytes_max:
            raise StoreTooLarge(f"{key} has more than the {size_bytes_max} bytes that are read of it")
        return data

    def head(self, key: str) -> int | None:
        """See Store."""
        path = self._path(key)
        try:
            with _told(f"look at {key} in {self._root}"):
                return path.stat().st_size if path.is_file() else None
        except StoreNotFound:
            return None

    def list(self, prefix: str, limit: int = LIST_LIMIT_MAX) -> tuple[str, ...]:
        """See Store."""
        found: list[str] = []
        with _told(f"list {prefix} in {self._root}"):
            for key in _keys_below(self._root, "", prefix):
                found.append(key)
                if len(found) >= limit:
                    break
        return tuple(found)

    def delete(self, key: str) -> None:
        """See Store. Folders that become empty stay: another writer may be about to use them."""
        path = self._path(key)
        with _told(f"delete {key} in {self._root}"):
            path.unlink(missing_ok=True)
            _sync_folder(path.parent)

    def probe(self) -> StoreCapabilities:
        """See Store. A directory has always conditional puts; this shows that it can be written."""
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        self.put_manifest(key, b"probe")
        self.get(key, size_bytes_max=100)
        self.delete(key)
        return StoreCapabilities(conditional_put=True)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _new_file(self) -> Path:
        folder = self._root / INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        return folder / secrets.token_hex(16)

    def _place(self, path: Path, data: bytes, *, replace: bool) -> bool:
        """Whether the bytes are now under the path; False when something was there and stays."""
        with _told(f"write {path}"):
            draft = self._new_file()
            try:
                _write_durably(draft, data)
                return _publish(draft, path, replace=replace)
            finally:
                draft.unlink(missing_ok=True)


class _FileWriter(BlobWriter):
    def __init__(self, key: str, path: Path, draft: Path) -> None:
        self._key = key
        self._path = path
        self._draft = draft
        self._running = hashlib.sha256()
        self._size_bytes = 0
        self._file: IO[bytes] | None = draft.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        with _told(f"write {self._key}"):
            _write_all(self._open_file(), data)
        self._running.update(data)
        self._size_bytes += len(data)

    def commit(self) -> StoredBlob:
        with _told(f"finish {self._key}"):
            file = self._open_file()
            os.fsync(file.fileno())
            file.close()
            _publish(self._draft, self._path, replace=True)
        self._file = None
        return StoredBlob(self._key, self._size_bytes, self._running.hexdigest())

    def abort(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        # Often runs on the way out of another error: that one is worth telling, and nothing became visible.
        with suppress(OSError):
            self._draft.unlink()

    def _open_file(self) -> IO[bytes]:
        if self._file is None:
            raise StoreError(f"the writer of {self._key} is closed")
        return self._file


def _chunks(file: IO[bytes], what: str) -> Iterator[bytes]:
    while True:
        with _told(what):
            chunk = file.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        _write_all(file, data)
        os.fsync(file.fileno())


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _publish(draft: Path, path: Path, *, replace: bool) -> bool:
    _make_folder(path.parent)
    if replace:
        draft.replace(path)
    else:
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return False
    _sync_folder(path.parent)
    return True


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _keys_below(folder: Path, base: str, prefix: str) -> Iterator[str]:
    """Keys in byte order: a folder sorts as its name with the slash, as it does in S3."""
    try:
        entries = [(entry.name + "/" * entry.is_dir(follow_symlinks=False)) for entry in os.scandir(folder)]
    except FileNotFoundError:
        return
    for name in sorted(name for name in entries if not name.startswith(".")):
        key = base + name
        if key.endswith("/"):
            if key.startswith(prefix) or prefix.startswith(key):
                yield from _keys_below(folder / name, key, prefix)
        elif key.startswith(prefix):
            yield key


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn an OSError into the store error that says what to do."""
    try:
        yield
    except OSError as error:
        raise _store_error(what, error) from error


def _store_error(what: str, error: OSError) -> StoreError:
    why = f"cannot {what}: {error.strerror or error}"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR:
            return StoreNotFound(why)
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return StoreFull(
                f"{why}. Make room on the store's disk; nothing was lost, it will be tried again."
            )
        case errno.EEXIST:
            return StoreConflict(f"{why}. Another object has this key, or a part of it.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StoreAccessDenied(f"{why}. Give the node agent's user write access to the directory.")
        case _:
            return StoreUnavailable(why)
