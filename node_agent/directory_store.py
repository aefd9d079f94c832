"""The store port on a directory: one machine, a mounted disk, or a network file system with hard links."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from node_agent.directory_files import publish, sync_folder, told, write_durably
from node_agent.directory_writer import INCOMING, DirectoryWriter, new_draft
from node_agent.store import (
    CHUNK_BYTES,
    LIST_LIMIT_MAX,
    PROBE_PREFIX,
    BlobWriter,
    Store,
    StoreCapabilities,
    StoredEntry,
    StoreError,
    StoreNotFound,
    StoreTooLarge,
    check_key,
    settle_conflict,
)
from node_agent.uploads import UploadJournal


class DirectoryStore(Store):
    """Each key is a file below the directory, made visible by link or rename when it is whole and on disk."""

    def __init__(self, root: Path, journal: UploadJournal | None = None) -> None:
        self._root = root
        self._journal = journal or UploadJournal()

    def open_writer(self, key: str) -> BlobWriter:
        """See Store. The bytes go to a file of their own first."""
        path = self._path(key)
        claim = self._journal.claim(key)
        try:
            with told(f"begin {key} in {self._root}"):
                return DirectoryWriter(self._root, key, path, claim)
        except StoreError:
            claim.release()
            raise

    @contextmanager
    def open_reader(self, key: str) -> Iterator[Iterator[bytes]]:
        """See Store."""
        path = self._path(key)
        with told(f"read {key} in {self._root}"):
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
        with told(f"read {key} in {self._root}"), path.open("rb") as file:
            data = file.read(size_bytes_max + 1)
        if len(data) > size_bytes_max:
            raise StoreTooLarge(f"{key} has more than the {size_bytes_max} bytes that are read of it")
        return data

    def head(self, key: str) -> int | None:
        """See Store."""
        path = self._path(key)
        try:
            with told(f"look at {key} in {self._root}"):
                return path.stat().st_size if path.is_file() else None
        except StoreNotFound:
            return None

    def list(self, prefix: str, limit: int = LIST_LIMIT_MAX) -> tuple[str, ...]:
        """See Store."""
        found: list[str] = []
        with told(f"list {prefix} in {self._root}"):
            for key in _keys_below(self._root, "", prefix):
                found.append(key)
                if len(found) >= limit:
                    break
        return tuple(found)

    def delete(self, key: str) -> None:
        """See Store. Folders that become empty stay: another writer may be about to use them."""
        path = self._path(key)
        with told(f"delete {key} in {self._root}"):
            path.unlink(missing_ok=True)
            sync_folder(path.parent)

    def probe(self) -> StoreCapabilities:
        """See Store. A directory has always conditional puts; this shows that it can be written."""
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        self.put_manifest(key, b"probe")
        self.get(key, size_bytes_max=100)
        self.delete(key)
        return StoreCapabilities(conditional_put=True, conditional_complete=True)

    def entries(
        self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT_MAX
    ) -> tuple[StoredEntry, ...]:
        """See Store."""
        found: list[StoredEntry] = []
        with told(f"list {prefix} in {self._root}"):
            for key in _keys_below(self._root, "", prefix):
                if key > after and (entry := _entry(key, self._root / key)) is not None:
                    found.append(entry)
                    if len(found) >= limit:
                        break
        return tuple(found)

    def delete_if_same(self, entry: StoredEntry) -> bool:
        """See Store. It is taken out of the way first, and put back if it is another."""
        path = self._path(entry.key)
        with told(f"delete {entry.key} in {self._root}"):
            aside = new_draft(self._root)
            try:
                path.rename(aside)
            except FileNotFoundError:
                return True
            same = _entry(entry.key, aside) == entry
            if not same:
                with suppress(FileExistsError):
                    path.hardlink_to(aside)
            aside.unlink()
            sync_folder(path.parent)
        return same

    def clock(self) -> datetime:
        """See Store. Of the file system, which may be another machine's."""
        with told(f"tell the time in {self._root}"):
            scratch = new_draft(self._root)
            write_durably(scratch, b"")
            now = _time_of(scratch.stat().st_mtime_ns)
            scratch.unlink()
        return now

    def drop_unfinished(self, older_than: timedelta) -> int:
        """See Store. A draft's age counts from when it was last written to."""
        before_s = time.time() - older_than.total_seconds()
        dropped = 0
        with told(f"sweep {self._root}"):
            for draft in (self._root / INCOMING).glob("*"):
                with suppress(FileNotFoundError):
                    if draft.stat().st_mtime < before_s:
                        draft.unlink()
                        dropped += 1
        return dropped

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _place(self, path: Path, data: bytes, *, replace: bool) -> bool:
        """Whether the bytes are now under the path; False when something was there and stays."""
        with told(f"write {path}"):
            draft = new_draft(self._root)
            try:
                write_durably(draft, data)
                return publish(draft, path, replace=replace)
            finally:
                draft.unlink(missing_ok=True)


def _entry(key: str, path: Path) -> StoredEntry | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    version = f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
    return StoredEntry(key, found.st_size, _time_of(found.st_mtime_ns), version)


def _time_of(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


def _chunks(file: IO[bytes], what: str) -> Iterator[bytes]:
    while True:
        with told(what):
            chunk = file.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


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
