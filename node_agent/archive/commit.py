"""The order in which an archive comes to be, and the proof that it is there (LAW 7, LAW 8).

Stopping the pod comes before, the database's compare-and-set after; both are the callers'.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import structlog

from node_agent.archive import manifest as manifests
from node_agent.archive.capture import notices_of
from node_agent.archive.errors import ArchiveConflict, ArchiveCorrupt, ArchiveError, SourceChanged
from node_agent.archive.fingerprint import TreeScan, scan_tree, tree_fingerprint
from node_agent.archive.incremental import Base, Increment, doubted, plan_increment, remember_saved
from node_agent.archive.manifest import MANIFEST_BYTES_MAX, NOTICES_MAX, Manifest, Method
from node_agent.archive.memory import Memory
from node_agent.archive.progress import Progress, unwatched
from node_agent.archive.records import RACY_NS, recorder, writing
from node_agent.archive.turns import Turn, at_once
from node_agent.archive.upload import Upload, Uploaded
from node_agent.store import Store, StoreConflict, StoreNotFound
from state.model import TargetKind

# The key of the tree's own fingerprint among a manifest's.
TREE = "tree"

T = TypeVar("T")
U = TypeVar("U")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """What to archive, and under which name. No two runs with different sources share epoch and attempt.

    `fingerprint` says which source this is: container id and times. Empty: the tree's own, under `tree`.
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


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """What makes an archive incremental: the node's memory, and the key and digest of the manifest that the
    database names for the target now. Without a base the archive is a full one, and is remembered."""

    memory: Memory
    base_key: str | None = None
    base_digest: str | None = None


def unconditionally() -> None:
    """For callers with nothing to check before the commit."""


def write_archive(
    store: Store,
    request: ArchiveRequest,
    source_dir: Path,
    *,
    node: NodeMemory | None = None,
    progress: Progress = unwatched,
    before_commit: Callable[[], None] = unconditionally,
    turn: Turn = at_once,
) -> ArchiveResult:
    """Blobs to keys of this attempt, read back, manifest last. "Already so" is success.

    `before_commit` is called right before the manifest is written, and may raise: then nothing is committed.
    `turn` is entered for what takes the processors.

    Raises ArchiveConflict when this attempt has committed another source, CaptureFailed or SourceChanged
    when the tree could not be read as one, ArchiveCorrupt when the store gave back other bytes, StoreError.
    After any of them the source is the only copy: keep it.
    """
    memory, fingerprint = node.memory if node else None, dict(request.fingerprint)
    with memory.drafts() if memory else nullcontext() as folder:
        # A distant store takes as long to answer as a small tree takes to be looked through.
        earlier, scan = both(
            lambda: _committed(store, request, fingerprint) if fingerprint else None,
            lambda: _settled(lambda: _scan(source_dir, folder)),
        )
        if earlier:  # whatever came of the scan
            return earlier
        before, scanned = scan.result()
        if not fingerprint:
            fingerprint = {TREE: before.fingerprint}
            if earlier := _committed(store, request, fingerprint):
                return earlier
        increment = _increment(store, request, source_dir, node, scanned)
        upload = Upload(
            store=store,
            kind=request.kind,
            target_id=request.target_id,
            epoch=request.epoch,
            attempt=request.attempt,
            source_dir=source_dir,
            scan=before,
            increment=increment,
            memory=memory,
            progress=progress,
            turn=turn,
        )
        uploaded = upload.run()
        after, _ = both(lambda: tree_fingerprint(source_dir), lambda: upload.verify(uploaded))
        if after != before.fingerprint:
            raise SourceChanged(f"{source_dir} changed while it was archived: something still writes to it")
        before_commit()
        result = _commit(store, request, _manifest_of(request, fingerprint, before, uploaded))
        if memory and scanned:
            records = increment.plan.records if increment else scanned
            remember_saved(memory, result.manifest, result.manifest_digest, source_dir, records)
        return result


def both(one: Callable[[], T], other: Callable[[], U]) -> tuple[T, U]:
    """Do both at once. Raises what the first raises, else what the other does."""
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(other)
        return one(), doing.result()


def _settled(work: Callable[[], T]) -> Future[T]:
    """Do it; what it raises is raised to whoever asks for the result."""
    settled: Future[T] = Future()
    try:
        settled.set_result(work())
    except ArchiveError as error:
        settled.set_exception(error)
    return settled


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


def _committed(store: Store, request: ArchiveRequest, fingerprint: dict[str, str]) -> ArchiveResult | None:
    """What an earlier run of this attempt has committed, so that its blobs are never written over."""
    key = _manifest_key(request)
    try:
        data = store.get(key, MANIFEST_BYTES_MAX)
    except StoreNotFound:
        return None
    manifest = manifests.parse(data)
    if manifest.fingerprint != fingerprint or manifest.image_id != request.image_id:
        raise ArchiveConflict(
            f"{key} is already committed and is of another source; this attempt may not be reused"
        )
    digest = manifests.digest(data)
    check_archive(store, key, digest)
    return ArchiveResult(key, digest, manifest)


def _scan(source_dir: Path, folder: Path | None) -> tuple[TreeScan, Path | None]:
    """The tree, and the file that records it; without one if there is no place for it."""
    if folder is None:
        return scan_tree(source_dir), None
    scanned, scan = folder / "scanned", None
    with doubted("record"):
        with writing(scanned) as writer:
            scan = scan_tree(source_dir, recorder(writer, time.time_ns() - RACY_NS))
        return scan, scanned
    return scan or scan_tree(source_dir), None


def _increment(
    store: Store, request: ArchiveRequest, source_dir: Path, node: NodeMemory | None, scanned: Path | None
) -> Increment | None:
    """What can stay where it is; None for a full archive. A broken base is told, and not built on."""
    if node is None or scanned is None or node.base_key is None or node.base_digest is None:
        return None
    try:
        base = Base(node.base_digest, check_archive(store, node.base_key, node.base_digest))
        if not _fits(base.manifest, request):
            return None
        return plan_increment(store, node.memory, base, source_dir, scanned, scanned.parent)
    except ArchiveError as error:
        log.warning("archive.base_broken", base=node.base_key, why=str(error), consequence="a full archive")
        return None


def _fits(base: Manifest, request: ArchiveRequest) -> bool:
    """The same target, saved in the same way, on the same image."""
    mine = (request.kind, request.target_id, request.method, request.image_id)
    return (base.kind, base.target_id, base.method, base.image_id) == mine


def _manifest_of(
    request: ArchiveRequest, fingerprint: dict[str, str], scan: TreeScan, uploaded: Uploaded
) -> Manifest:
    return Manifest(
        kind=request.kind,
        target_id=request.target_id,
        user_id=request.user_id,
        epoch=request.epoch,
        attempt=request.attempt,
        number=request.number,
        created_at=request.created_at,
        fingerprint=fingerprint,
        image_id=request.image_id,
        image_ref=request.image_ref,
        method=request.method,
        blobs=uploaded.blobs,
        entries=scan.entries,
        tree=scan.fingerprint,
        notices=(*request.notices, *notices_of(scan, uploaded.warnings))[:NOTICES_MAX],
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
