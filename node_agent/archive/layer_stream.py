"""An archive's tree as one tar, read from its layers in the store: for restores and for compaction.

Layers come newest first, each without its dead members. Every layer holds the folders above its members, so
a folder always comes before what is in it, and no path comes twice.
"""

import hashlib
from collections.abc import Generator, Iterator
from typing import IO, cast

import zstandard

from node_agent.archive.ahead import ahead
from node_agent.archive.errors import ArchiveCorrupt
from node_agent.archive.layers import INDEX_BYTES_MAX, decode_index
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.archive.tar_members import LivingMembers, end_mark
from node_agent.store import CHUNK_BYTES, Store, StoreNotFound

# Enough for zstd's --long=27; a frame that asks for more is refused instead of given the memory.
WINDOW_BYTES_MAX = 1 << 27

Names = dict[int, set[bytes]]


def tree_tar(store: Store, manifest: Manifest, names: Names | None = None) -> Generator[bytes, None, None]:
    """The whole tree's tar. Ends only if every blob was as the manifest says; else ArchiveCorrupt.

    `names` gets the living members of each layer that it has a set for. Raises StoreError.
    """
    if manifest.index is None:
        for layer in manifest.layers:
            yield from unpacked(store, layer)
        return
    dead = read_dead(store, manifest)
    kept, tar_bytes = 0, 0
    for number, layer in reversed(list(enumerate(manifest.layers))):
        living = LivingMembers(unpacked(store, layer), dead[number], (names or {}).get(number))
        for data in living:
            tar_bytes += len(data)
            yield data
        kept += living.kept
    yield end_mark(tar_bytes)
    if kept != manifest.entries:
        raise ArchiveCorrupt(f"the layers hold {kept} of the archive's {manifest.entries} entries")


def read_dead(store: Store, manifest: Manifest) -> dict[int, frozenset[bytes]]:
    """Dead paths by layer. Raises ArchiveCorrupt, StoreError."""
    if manifest.index is None:
        return {number: frozenset() for number in range(len(manifest.layers))}
    if manifest.index.tar_bytes > INDEX_BYTES_MAX:
        raise ArchiveCorrupt(f"the archive's index has more than {INDEX_BYTES_MAX} bytes")
    return decode_index(b"".join(unpacked(store, manifest.index)), len(manifest.layers))


def unpacked(store: Store, blob: BlobRef) -> Generator[bytes, None, None]:
    """What is inside a blob. Ends only if every byte was as the manifest says; else ArchiveCorrupt."""
    fetched = _Fetched(store, blob)
    with ahead(fetched.chunks()) as chunks:
        yield from _unzipped(_File(chunks), blob)
        for _ in chunks:
            continue
    fetched.check()


class _Fetched:
    """The blob's bytes, counted and hashed as they pass."""

    def __init__(self, store: Store, blob: BlobRef) -> None:
        self._store = store
        self._blob = blob
        self._running = hashlib.sha256()
        self._size_bytes = 0

    def chunks(self) -> Generator[bytes, None, None]:
        """As they come; ends early when there are more than there should be."""
        try:
            with self._store.open_reader(self._blob.key) as chunks:
                for chunk in chunks:
                    self._running.update(chunk)
                    self._size_bytes += len(chunk)
                    yield chunk
                    if self._size_bytes > self._blob.size_bytes:
                        return
        except StoreNotFound as error:
            raise ArchiveCorrupt(f"blob {self._blob.key} is not in the store") from error

    def check(self) -> None:
        """All chunks have passed: were they the right ones?"""
        blob, sha256 = self._blob, self._running.hexdigest()
        if (self._size_bytes, sha256) != (blob.size_bytes, blob.sha256):
            raise ArchiveCorrupt(
                f"blob {blob.key} has {self._size_bytes} bytes with SHA-256 {sha256}; "
                f"the manifest says {blob.size_bytes} bytes with {blob.sha256}"
            )


class _File:
    """What the decompressor reads of."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, _size: int = -1) -> bytes:
        return next(self._chunks, b"")


def _unzipped(file: _File, blob: BlobRef) -> Iterator[bytes]:
    # The stubs ask for a whole file, the decompressor for `read` alone.
    source = cast("IO[bytes]", file)
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    reader = decompressor.stream_reader(source, read_size=CHUNK_BYTES)
    tar_bytes = 0
    while data := _read(reader, blob):
        tar_bytes += len(data)
        if tar_bytes > blob.tar_bytes:
            break
        yield data
    if tar_bytes != blob.tar_bytes:
        raise ArchiveCorrupt(
            f"blob {blob.key} unpacks to another size than the {blob.tar_bytes} bytes it had"
        )


def _read(reader: zstandard.ZstdDecompressionReader, blob: BlobRef) -> bytes:
    try:
        return reader.read(CHUNK_BYTES)
    except zstandard.ZstdError as error:
        raise ArchiveCorrupt(f"blob {blob.key} cannot be decompressed: {error}") from error
