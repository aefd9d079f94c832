"""From a blob in the store to a tree on disk: fetched, checked and unpacked in one pass of bounded memory."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import zstandard

from node_agent.archive.confinement import TREE, confined_argv
from node_agent.archive.errors import RestoreCorrupt, RestoreDiskFull, RestoreFailed
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.archive.progress import Progress, unwatched
from node_agent.archive.tar_process import TarProcess, extract_argv
from node_agent.store import CHUNK_BYTES, Store, StoreNotFound

# Enough for zstd's --long=27; a frame that asks for more is refused instead of given the memory.
WINDOW_BYTES_MAX = 1 << 27
# tar's words when a file system is full; the last one when some of a write still fitted.
_FULL_DISK = ("No space left on device", "Disk quota exceeded", "Wrote only")


def restore_archive(
    store: Store, manifest: Manifest, target_dir: Path, *, progress: Progress = unwatched
) -> None:
    """Unpack all blobs of an archive, in order, and have them on the disk. See `restore_tree`."""
    total_bytes = sum(blob.tar_bytes for blob in manifest.layers)
    done_bytes = 0
    for blob in manifest.layers:
        restore_tree(store, blob, target_dir, progress=_as_part(progress, done_bytes, total_bytes))
        done_bytes += blob.tar_bytes
    _sync(target_dir)


def _sync(target_dir: Path) -> None:
    """Have the tree on the disk: after a power cut, empty files would pass for the learner's work."""
    result = subprocess.run(
        ["sync", "--file-system", str(target_dir)], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise RestoreFailed(f"could not sync {target_dir}: {result.stderr.strip()}")


def restore_tree(store: Store, blob: BlobRef, target_dir: Path, *, progress: Progress = unwatched) -> None:
    """Unpack one blob into an existing directory; nothing outside of it can be written.

    Only a return says that the tree is whole. On RestoreCorrupt (the blob is not what was archived),
    RestoreFailed (this node could not) and StoreError, the caller discards the directory.
    """
    argv = confined_argv(target_dir.absolute(), extract_argv(TREE))
    with TarProcess(argv, extracts=True) as tar:
        done_bytes = 0
        for data in _checked(store, blob):
            if not tar.feed(data):
                break
            done_bytes += len(data)
            progress(done_bytes, blob.tar_bytes)
        code, messages = tar.finish()
    if code != 0 or messages or done_bytes != blob.tar_bytes:
        raise _failure(target_dir, code, messages)


def _as_part(progress: Progress, before_bytes: int, total_bytes: int) -> Progress:
    def report(done_bytes: int, _blob_bytes: int) -> None:
        progress(before_bytes + done_bytes, total_bytes)

    return report


class _Fetched:
    """A file of the blob's bytes for the decompressor, which are counted and hashed as they pass."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._running = hashlib.sha256()
        self.size_bytes = 0

    def read(self, _size: int = -1) -> bytes:
        chunk = next(self._chunks, b"")
        self._running.update(chunk)
        self.size_bytes += len(chunk)
        return chunk

    def sha256(self) -> str:
        return self._running.hexdigest()


def _checked(store: Store, blob: BlobRef) -> Iterator[bytes]:
    """The tar inside the blob. Ends only if every byte was as the manifest says; else RestoreCorrupt."""
    try:
        with store.open_reader(blob.key) as chunks:
            fetched = _Fetched(chunks)
            yield from _unzipped(fetched, blob)
            _check_whole(fetched, blob)
    except StoreNotFound as error:
        raise RestoreCorrupt(f"blob {blob.key} is not in the store") from error


def _unzipped(fetched: _Fetched, blob: BlobRef) -> Iterator[bytes]:
    # The stubs ask for a whole file, the decompressor for `read` alone.
    source = cast("IO[bytes]", fetched)
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    reader = decompressor.stream_reader(source, read_size=CHUNK_BYTES)
    tar_bytes = 0
    while data := _read(reader, blob):
        tar_bytes += len(data)
        if tar_bytes > blob.tar_bytes:
            break
        yield data
    if tar_bytes != blob.tar_bytes:
        raise RestoreCorrupt(
            f"blob {blob.key} unpacks to another size than the {blob.tar_bytes} bytes it had"
        )


def _read(reader: zstandard.ZstdDecompressionReader, blob: BlobRef) -> bytes:
    try:
        return reader.read(CHUNK_BYTES)
    except zstandard.ZstdError as error:
        raise RestoreCorrupt(f"blob {blob.key} cannot be decompressed: {error}") from error


def _check_whole(fetched: _Fetched, blob: BlobRef) -> None:
    while fetched.size_bytes <= blob.size_bytes and fetched.read():
        continue
    if fetched.size_bytes != blob.size_bytes or fetched.sha256() != blob.sha256:
        raise RestoreCorrupt(
            f"blob {blob.key} has {fetched.size_bytes} bytes with SHA-256 {fetched.sha256()}; "
            f"the manifest says {blob.size_bytes} bytes with {blob.sha256}"
        )


def _failure(target_dir: Path, code: int, messages: tuple[str, ...]) -> RestoreFailed:
    said = "; ".join(messages) or "nothing"
    why = f"could not unpack into {target_dir} (exit {code}), tar said: {said}"
    if any(full in message for message in messages for full in _FULL_DISK):
        return RestoreDiskFull(
            f"{why}. Make room on the node's disk; the archive is well, it is tried again."
        )
    return RestoreFailed(why)
