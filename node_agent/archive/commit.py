"""The order in which an archive comes to be, and the proof that it is there (LAW 7, LAW 8).

Stopping the pod comes before, the database's compare-and-set after; both are the callers'.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from node_agent.archive import manifest as manifests
from node_agent.archive.capture import Captured, capture_tree, notices_of, verify_blob
from node_agent.archive.errors import ArchiveConflict, ArchiveCorrupt, SourceChanged
from node_agent.archive.fingerprint import TreeScan, scan_tree
from node_agent.archive.manifest import MANIFEST_BYTES_MAX, NOTICES_MAX, Manifest, Method
from node_agent.archive.progress import Progress, unwatched
from node_agent.store import Store, StoreConflict, StoreNotFound
from state.model import TargetKind

TREE_BLOB_NAME = "tree.tar.zst"


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """What to archive, and under which name. No two runs with different sources share epoch and attempt.

    `fingerprint` says which source this is (container id and times, or the tree's own fingerprint);
    `notices` are of what was lost before the tree lay in a directory.
    """

    kind: TargetKind
    target_id: str
    user_id: str
    epoch: int
    attempt: int
    number: int
    created_at: datetime
    fingerprint: Mapping[str, str]
    method: Method
    image_id: str | None = None
    image_ref: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """A committed archive: what the database keeps of it, and the manifest itself."""

    manifest_key: str
    manifest_digest: str
    manifest: Manifest


def unconditionally() -> None:
    """For callers with nothing to check before the commit."""


def write_archive(
    store: Store,
    request: ArchiveRequest,
    source_dir: Path,
    *,
    progress: Progress = unwatched,
    before_commit: Callable[[], None] = unconditionally,
) -> ArchiveResult:
    """Blob to a key of this attempt, read back, manifest last. "Already so" is success.

    `before_commit` is called right before the manifest is written, and may raise: then nothing is committed.

    Raises ArchiveConflict when this attempt has committed another source, CaptureFailed or SourceChanged
    when the tree could not be read as one, ArchiveCorrupt when the store gave back other bytes, StoreError.
    After any of them the source is the only copy: keep it.
    """
    earlier = _committed(store, request)
    if earlier:
        return earlier
    before = scan_tree(source_dir)
    captured = _capture(store, request, source_dir, before, progress)
    if scan_tree(source_dir).fingerprint != before.fingerprint:
        raise SourceChanged(f"{source_dir} changed while it was archived: something still writes to it")
    verify_blob(store, captured.blob)
    before_commit()
    return _commit(store, request, _manifest_of(request, before, captured))


def check_archive(store: Store, manifest_key: str, manifest_digest: str) -> Manifest:
    """The manifest, if it is there with this digest and each of its blobs with its size.

    Raises ArchiveCorrupt or ManifestInvalid when not so, StoreError when it cannot be known. A scrub reads
    the blobs' contents too: `capture.verify`.
    """
    manifest = read_manifest(store, manifest_key, manifest_digest)
    for blob in manifest.blobs:
        size_bytes = store.head(blob.key)
        if size_bytes != blob.size_bytes:
            there = "is missing" if size_bytes is None else f"has {size_bytes} bytes"
            raise ArchiveCorrupt(f"blob {blob.key} {there}; its manifest says {blob.size_bytes} bytes")
    return manifest


def read_manifest(store: Store, manifest_key: str, manifest_digest: str) -> Manifest:
    """The manifest with this digest. Raises ArchiveCorrupt, ManifestInvalid, StoreError."""
    try:
        data = store.get(manifest_key, MANIFEST_BYTES_MAX)
    except StoreNotFound as error:
        raise ArchiveCorrupt(f"manifest {manifest_key} is not in the store") from error
    if manifests.digest(data) != manifest_digest:
        raise ArchiveCorrupt(f"manifest {manifest_key} is not the one that was committed: its digest differs")
    return manifests.parse(data)


def _committed(store: Store, request: ArchiveRequest) -> ArchiveResult | None:
    """What an earlier run of this attempt has committed, so that its blob is never written over."""
    key = _manifest_key(request)
    try:
        data = store.get(key, MANIFEST_BYTES_MAX)
    except StoreNotFound:
        return None
    manifest = manifests.parse(data)
    if manifest.fingerprint != dict(request.fingerprint) or manifest.image_id != request.image_id:
        raise ArchiveConflict(
            f"{key} is already committed and is of another source; this attempt may not be reused"
        )
    digest = manifests.digest(data)
    check_archive(store, key, digest)
    return ArchiveResult(key, digest, manifest)


def _capture(
    store: Store, request: ArchiveRequest, source_dir: Path, scan: TreeScan, progress: Progress
) -> Captured:
    key = manifests.blob_key(request.kind, request.target_id, request.epoch, request.attempt, TREE_BLOB_NAME)
    writer = store.open_writer(key)
    return capture_tree(source_dir, writer, estimate_bytes=scan.data_bytes, progress=progress)


def _manifest_of(request: ArchiveRequest, scan: TreeScan, captured: Captured) -> Manifest:
    return Manifest(
        kind=request.kind,
        target_id=request.target_id,
        user_id=request.user_id,
        epoch=request.epoch,
        attempt=request.attempt,
        number=request.number,
        created_at=request.created_at,
        fingerprint=dict(request.fingerprint),
        image_id=request.image_id,
        image_ref=request.image_ref,
        method=request.method,
        blobs=(captured.blob,),
        entries=scan.entries,
        notices=(*request.notices, *notices_of(scan, captured.warnings))[:NOTICES_MAX],
    )


def _commit(store: Store, request: ArchiveRequest, manifest: Manifest) -> ArchiveResult:
    key, data = _manifest_key(request), manifests.to_bytes(manifest)
    try:
        store.put_manifest(key, data)
    except StoreConflict as error:
        raise ArchiveConflict(f"{key} was committed by somebody else meanwhile; theirs stands") from error
    return ArchiveResult(key, manifests.digest(data), manifest)


def _manifest_key(request: ArchiveRequest) -> str:
    return manifests.manifest_key(request.kind, request.target_id, request.epoch, request.attempt)
