"""The blobs of one archive on their way into the store: the new layer, the index; and their proof."""

from dataclasses import dataclass
from pathlib import Path

import zstandard

from node_agent.archive import manifest as manifests
from node_agent.archive.capture import Captured, capture_tree, verify_blob
from node_agent.archive.fingerprint import TreeScan
from node_agent.archive.incremental import Increment, doubted
from node_agent.archive.manifest import INDEX_ZSTD, BlobRef
from node_agent.archive.memory import Memory, UploadedLayer
from node_agent.archive.progress import Progress
from node_agent.archive.turns import Turn, at_once
from node_agent.store import Store
from state.model import TargetKind

TREE_BLOB_NAME = "tree.tar.zst"
INDEX_BLOB_NAME = "index.zst"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """All blobs of the archive, oldest layer first; those that are new in the store; and tar's warnings."""

    blobs: tuple[BlobRef, ...]
    fresh: tuple[BlobRef, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Upload:
    """One attempt to store one tree, on top of `increment` or whole."""

    store: Store
    kind: TargetKind
    target_id: str
    epoch: int
    attempt: int
    source_dir: Path
    scan: TreeScan
    increment: Increment | None
    memory: Memory | None
    progress: Progress
    turn: Turn = at_once

    def run(self) -> Uploaded:
        """Store what is missing. Raises CaptureFailed, StoreError."""
        if self.increment is None:
            captured, fresh = self._layer(None, self.scan.data_bytes)
            return Uploaded((captured.blob,), fresh, captured.warnings)
        plan, kept = self.increment.plan, self.increment.kept
        if plan.resent == 0:
            return Uploaded(self.increment.base.manifest.blobs, ())
        captured, fresh = self._layer(plan.members, plan.resent_bytes)
        index = self._index(self.increment.index)
        return Uploaded((*kept, captured.blob, index), (*fresh, index), captured.warnings)

    def verify(self, uploaded: Uploaded) -> None:
        """Read back what is new, and remember the layer in case that the archive does not come to be."""
        for blob in uploaded.fresh:
            verify_blob(self.store, blob)
        layers = [blob for blob in uploaded.fresh if blob.role == "tree"]
        if self.memory and layers and not uploaded.warnings:
            with doubted("remember an upload"):
                noted = UploadedLayer(self.scan.fingerprint, self._base_digest, layers[0])
                self.memory.note_upload(self.kind, self.target_id, noted)

    def _layer(self, members: Path | None, estimate_bytes: int) -> tuple[Captured, tuple[BlobRef, ...]]:
        """The new layer, and which blobs are new with it: none if an earlier attempt has got that far."""
        earlier = self._earlier()
        if earlier:
            return Captured(earlier, ()), ()
        with self.turn():
            captured = capture_tree(
                self.source_dir,
                self.store.open_writer(self._key(TREE_BLOB_NAME)),
                members=members,
                estimate_bytes=estimate_bytes,
                progress=self.progress,
            )
        blob = captured.blob.model_copy(update={"live_bytes": captured.blob.tar_bytes})
        return Captured(blob, captured.warnings), (blob,)

    def _earlier(self) -> BlobRef | None:
        found = None
        with doubted("look up an upload"):
            found = self.memory.upload(self.kind, self.target_id) if self.memory else None
        if found is None or (found.tree, found.base_digest) != (self.scan.fingerprint, self._base_digest):
            return None
        return found.blob if self.store.head(found.blob.key) == found.blob.size_bytes else None

    def _index(self, records: bytes) -> BlobRef:
        with self.store.open_writer(self._key(INDEX_BLOB_NAME)) as writer:
            writer.write(zstandard.ZstdCompressor(write_checksum=True).compress(records))
            stored = writer.commit()
        return BlobRef(
            key=stored.key,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            media_type=INDEX_ZSTD,
            role="index",
            tar_bytes=len(records),
        )

    @property
    def _base_digest(self) -> str | None:
        return self.increment.base.digest if self.increment else None

    def _key(self, name: str) -> str:
        return manifests.blob_key(self.kind, self.target_id, self.epoch, self.attempt, name)
