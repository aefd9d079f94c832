"""From a tree on disk to one blob in the store: tar, zstd and SHA-256 in one pass of bounded memory."""

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from node_agent.archive.ahead import ahead
from node_agent.archive.errors import ArchiveCorrupt, CaptureFailed, SourceChanged
from node_agent.archive.fingerprint import TreeScan
from node_agent.archive.manifest import NOTICE_LENGTH_MAX, NOTICES_MAX, BlobRef, Manifest
from node_agent.archive.member_tar import EndMark
from node_agent.archive.progress import Progress, unwatched
from node_agent.archive.tar_process import TarProcess, create_argv
from node_agent.store import CHUNK_BYTES, BlobWriter, Store, StoreNotFound

# gzip -6's size at a seventh of its CPU; two threads keep up with tar.
ZSTD_LEVEL = 3
ZSTD_THREADS = 2
# What a thread compresses at a time. By itself zstd takes 8 MiB, and has up to 70 MiB under way.
ZSTD_JOB_BYTES = 2 << 20
NAMES_TOLD_MAX = 10
# GNU tar's exit status for files that changed, shrank or went while it read them.
TAR_SAW_CHANGES = 1

_ZSTD = zstandard.ZstdCompressionParameters.from_level(
    ZSTD_LEVEL, threads=ZSTD_THREADS, job_size=ZSTD_JOB_BYTES, write_checksum=True
)


@dataclass(frozen=True, slots=True)
class Captured:
    """The blob, and tar's warnings: what it passed over without failing."""

    blob: BlobRef
    warnings: tuple[str, ...]


def capture_tree(
    source_dir: Path,
    writer: BlobWriter,
    *,
    members: Path | None = None,
    estimate_bytes: int = 0,
    progress: Progress = unwatched,
) -> Captured:
    """Stream the tree, or the `members` that a file lists, through the writer and commit it. Follows no link.

    Sockets are left out (`notices_of` names them). Raises CaptureFailed when tar did not read everything,
    StoreError when the store did not take everything; in both cases nothing becomes visible.
    """
    with writer, TarProcess(create_argv(source_dir, members), extracts=False) as tar:
        end = EndMark()
        tar_bytes = write_zipped(end.through(tar.read_chunks()), writer, estimate_bytes, progress)
        warnings = _finish(tar, source_dir)
        if not end.seen:
            raise CaptureFailed(f"what tar wrote of {source_dir} breaks off, and tar calls it a success")
        stored = writer.commit()
    blob = BlobRef(key=stored.key, size_bytes=stored.size_bytes, sha256=stored.sha256, tar_bytes=tar_bytes)
    return Captured(blob=blob, warnings=warnings)


def write_zipped(
    chunks: Iterator[bytes], writer: BlobWriter, estimate_bytes: int = 0, progress: Progress = unwatched
) -> int:
    """Compress into the writer, in one zstd frame; the caller commits. Returns the size uncompressed."""
    done_bytes = 0
    with ahead(_zipped(chunks)) as pieces:
        for done_bytes, piece in pieces:
            writer.write(piece)
            progress(done_bytes, max(done_bytes, estimate_bytes))
    return done_bytes


def _zipped(chunks: Iterator[bytes]) -> Generator[tuple[int, bytes], None, None]:
    """Compressed pieces, each with how much has been read by then."""
    stream = zstandard.ZstdCompressor(compression_params=_ZSTD).chunker(chunk_size=CHUNK_BYTES)
    read_bytes = 0
    for chunk in chunks:
        read_bytes += len(chunk)
        for piece in stream.compress(chunk):
            yield read_bytes, piece
    for piece in stream.finish():  # type: ignore[no-untyped-call]
        yield read_bytes, piece


def notices_of(scan: TreeScan, warnings: tuple[str, ...] = ()) -> tuple[str, ...]:
    """One sentence for each kind of thing that the archive does not hold. Pure."""
    notices = []
    if scan.socket_count:
        names = _some(scan.sockets, scan.socket_count)
        notices.append(f"sockets are left out; their programs make them anew: {names}")
    if scan.split_link_count:
        names = _some(scan.split_links, scan.split_link_count)
        notices.append(f"FIFOs and devices with several names come back as separate ones: {names}")
    if scan.held_fast_count:
        names = _some(scan.held_fast, scan.held_fast_count)
        notices.append(
            "files come back as ordinary ones, without the flag that nobody may change them "
            f"(chattr +i or +a); set it again if it is still wanted: {names}"
        )
    notices += [f"tar said: {warning}" for warning in warnings]
    return tuple(notice[:NOTICE_LENGTH_MAX] for notice in notices[:NOTICES_MAX])


def verify(store: Store, manifest: Manifest) -> None:
    """Read every blob back whole. Raises ArchiveCorrupt at the first that is not as the manifest says."""
    for blob in manifest.blobs:
        verify_blob(store, blob)


def verify_blob(store: Store, blob: BlobRef) -> None:
    """Read one blob back and compare size and digest. Raises ArchiveCorrupt, or StoreError."""
    running, size_bytes = hashlib.sha256(), 0
    try:
        with store.open_reader(blob.key) as chunks:
            for chunk in chunks:
                running.update(chunk)
                size_bytes += len(chunk)
    except StoreNotFound as error:
        raise ArchiveCorrupt(f"blob {blob.key} is not in the store") from error
    if size_bytes != blob.size_bytes or running.hexdigest() != blob.sha256:
        raise ArchiveCorrupt(
            f"blob {blob.key} reads back as {size_bytes} bytes with SHA-256 {running.hexdigest()}; "
            f"the manifest says {blob.size_bytes} bytes with {blob.sha256}"
        )


def _finish(tar: TarProcess, source_dir: Path) -> tuple[str, ...]:
    code, messages = tar.finish()
    said = "; ".join(messages) or "nothing"
    if code == TAR_SAW_CHANGES:
        raise SourceChanged(f"{source_dir} changed while it was archived, tar said: {said}")
    if code != 0:
        raise CaptureFailed(f"could not read all of {source_dir} (exit {code}), tar said: {said}")
    return messages


def _some(names: tuple[str, ...], count: int) -> str:
    told = names[:NAMES_TOLD_MAX]
    rest = count - len(told)
    return ", ".join(told) + (f" and {rest} more" if rest else "")
