"""Writing a blob into a directory store: to a draft first, and after a crash on from where the draft ends."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from node_agent.directory_files import publish, told, write_all
from node_agent.store import (
    CHUNK_BYTES,
    BlobWriter,
    StoredBlob,
    StoreError,
    StoreUnavailable,
    check_same,
    other_content,
)
from node_agent.uploads import Claim

# Unfinished writes; no key can start with a dot, so they never show.
INCOMING = ".incoming"
# A smaller draft is not worth a file in the journal.
REMEMBERED_FROM_BYTES = 8 << 20

_TOKEN = re.compile(r"[0-9a-f]{32}")


class DirectoryWriter(BlobWriter):
    """One blob. What an earlier run has written is compared with, and not written again."""

    def __init__(self, root: Path, key: str, path: Path, claim: Claim) -> None:
        self._key = key
        self._path = path
        self._claim = claim
        self._running = hashlib.sha256()
        self._size_bytes = 0
        self._remembered = False
        # Whether the bytes are still those that are in the file already.
        self._repeats = True
        self._finished = path.is_file()
        self._draft = path if self._finished else _draft_of(root, claim)
        self._file: IO[bytes] | None = self._draft.open("rb" if self._finished else "r+b", buffering=0)

    def write(self, data: bytes) -> None:
        file = self._open_file()
        with told(f"write {self._key}"):
            fresh = data[self._repeated(file, data) :] if self._repeats else data
            write_all(file, fresh)
        self._running.update(data)
        self._size_bytes += len(data)
        if self._size_bytes >= REMEMBERED_FROM_BYTES and not self._remembered and not self._finished:
            self._remembered = True
            self._claim.remember(self._draft.name)

    def commit(self) -> StoredBlob:
        file, digest = self._open_file(), self._running.hexdigest()
        with told(f"finish {self._key}"):
            if os.fstat(file.fileno()).st_size > self._size_bytes:
                self._diverge(file, self._size_bytes)
            os.fsync(file.fileno())
            if not self._finished and not publish(self._draft, self._path, replace=False):
                check_same(self._key, _chunks(self._path), self._size_bytes, digest)
        self._leave(keeps_draft=False)
        return StoredBlob(self._key, self._size_bytes, digest)

    def abort(self) -> None:
        self._leave(keeps_draft=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is there stays, for the retry.
        self._leave(keeps_draft=isinstance(error, StoreUnavailable) and self._claim.kept)

    def _repeated(self, file: IO[bytes], data: bytes) -> int:
        """How many of the next bytes the file has already; about where it differs, it is cut off."""
        there = _read_up_to(file, len(data))
        same = len(there) if data.startswith(there) else 0
        if same < len(data):
            self._diverge(file, self._size_bytes + same)
        return same

    def _diverge(self, file: IO[bytes], at: int) -> None:
        if self._finished:
            raise other_content(self._key)
        self._repeats = False
        file.seek(at)
        file.truncate()

    def _leave(self, *, keeps_draft: bool) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if not keeps_draft:
            # Often runs on the way out of another error: that one is worth telling, and nothing shows.
            with suppress(OSError):
                if not self._finished:
                    self._draft.unlink()
            self._claim.forget()
        self._claim.release()

    def _open_file(self) -> IO[bytes]:
        if self._file is None:
            raise StoreError(f"the writer of {self._key} is closed")
        return self._file


def new_draft(root: Path) -> Path:
    """A name for a file that does not show."""
    folder = root / INCOMING
    folder.mkdir(parents=True, exist_ok=True)
    return folder / secrets.token_hex(16)


def _draft_of(root: Path, claim: Claim) -> Path:
    """The draft that an earlier run has left of this family, or a new one."""
    if claim.begun is not None and _TOKEN.fullmatch(claim.begun.token):
        draft = root / INCOMING / claim.begun.token
        if draft.is_file():
            return draft
    draft = new_draft(root)
    draft.touch(exist_ok=False)
    return draft


def _read_up_to(file: IO[bytes], length: int) -> bytes:
    """As many bytes as the file has, `length` at most."""
    pieces = []
    while length > 0 and (piece := file.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
