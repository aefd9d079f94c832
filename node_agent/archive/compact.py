"""Compaction: a chain of layers rewritten into one, from the store alone; the content stays what it was.

Needs no node that holds the tree: any process with the store may do it, in the background. For whoever calls
it and collects garbage:

- `compact` writes new objects only: blob first, manifest last, under keys of its own. A crash anywhere
  leaves the old archive whole, and at most objects that no committed manifest names.
- The archive changes hands when the database's compare-and-set puts the new manifest's key and digest in the
  place of the old ones (same number, same fingerprint). Until then, and if it is refused, the old one stands,
  and the new objects are garbage.
- A blob is alive while any live manifest names it, under whatever attempt's prefix it lies, and the base of
  an open archive action is a live manifest. Remove a dead archive's manifest first, its blobs after that.
"""

import re
from dataclasses import dataclass

from node_agent.archive import manifest as manifests
from node_agent.archive.capture import verify_blob, write_zipped
from node_agent.archive.commit import ArchiveResult, check_archive
from node_agent.archive.errors import ArchiveConflict
from node_agent.archive.layer_stream import tree_tar
from node_agent.archive.manifest import MANIFEST_BYTES_MAX, BlobRef, Manifest
from node_agent.archive.progress import Progress, unwatched
from node_agent.store import Store, StoreConflict, StoreNotFound, check_key

# By cost: each layer is a request and a frame more, a dead byte is fetched and unzipped for nothing.
LAYERS_KEPT_MAX = 8
DEAD_SHARE_MAX = 0.5

_BLOB_NAME = "tree.tar.zst"
_RUN = re.compile(r"[a-z0-9]{1,40}")


def dead_bytes(manifest: Manifest) -> int:
    """About how many bytes of the layers, unpacked, are no longer part of the tree."""
    return sum(max(0, layer.tar_bytes - _live_bytes(layer)) for layer in manifest.layers)


def is_worth_compacting(manifest: Manifest) -> bool:
    """Whether restores would gain more than the rewriting costs."""
    if manifest.index is None:
        return False
    live_bytes = sum(_live_bytes(layer) for layer in manifest.layers)
    return len(manifest.layers) > LAYERS_KEPT_MAX or dead_bytes(manifest) > DEAD_SHARE_MAX * live_bytes


def compact(store: Store, manifest: Manifest, run: str, *, progress: Progress = unwatched) -> ArchiveResult:
    """The same archive in one layer, committed to the store, not yet to the database. Repeats safely.

    `run` names this try in its keys (lower-case letters and digits): the same run again is already so, two
    runs never share a key. Reads and writes at once, in bounded memory. Raises ArchiveCorrupt when a blob is
    not as the manifest says, ArchiveConflict, StoreError; the archive itself is never touched.
    """
    keys = _keys(manifest, run)
    store = store.of_user(manifest.user_id)
    earlier = _committed(store, keys, manifest)
    if earlier:
        return earlier
    blob = _rewrite(store, manifest, keys.blob, progress)
    verify_blob(store, blob)
    return _commit(store, keys, manifest.model_copy(update={"format": manifests.FORMAT, "blobs": (blob,)}))


@dataclass(frozen=True, slots=True)
class _Keys:
    blob: str
    manifest: str


def _keys(manifest: Manifest, run: str) -> _Keys:
    if not _RUN.fullmatch(run):
        raise ValueError(f"{run!r} cannot name a run: use up to 40 lower-case letters and digits")
    prefix = manifests.archive_prefix(manifest.kind, manifest.target_id, manifest.epoch, manifest.attempt)
    return _Keys(
        blob=check_key(f"{prefix}-{run}/{_BLOB_NAME}"),
        manifest=check_key(f"{prefix}-{run}/{manifests.MANIFEST_NAME}"),
    )


def _committed(store: Store, keys: _Keys, manifest: Manifest) -> ArchiveResult | None:
    """What an earlier call of this run has committed."""
    try:
        data = store.get(keys.manifest, MANIFEST_BYTES_MAX)
    except StoreNotFound:
        return None
    found, digest = manifests.parse(data), manifests.digest(data)
    if found.model_copy(update={"blobs": manifest.blobs, "format": manifest.format}) != manifest:
        raise ArchiveConflict(f"{keys.manifest} is already committed and is of another archive")
    check_archive(store, keys.manifest, digest)
    return ArchiveResult(keys.manifest, digest, found)


def _rewrite(store: Store, manifest: Manifest, key: str, progress: Progress) -> BlobRef:
    estimate_bytes = sum(layer.tar_bytes for layer in manifest.layers)
    with store.open_writer(key) as writer:
        tar_bytes = write_zipped(tree_tar(store, manifest), writer, estimate_bytes, progress)
        stored = writer.commit()
    return BlobRef(
        key=stored.key,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        tar_bytes=tar_bytes,
        live_bytes=tar_bytes,
    )


def _commit(store: Store, keys: _Keys, manifest: Manifest) -> ArchiveResult:
    data = manifests.to_bytes(manifest)
    try:
        store.put_manifest(keys.manifest, data)
    except StoreConflict as error:
        raise ArchiveConflict(f"{keys.manifest} was committed by somebody else meanwhile") from error
    return ArchiveResult(keys.manifest, manifests.digest(data), manifest)


def _live_bytes(layer: BlobRef) -> int:
    """Format 1 does not say, and has no dead bytes."""
    return layer.tar_bytes if layer.live_bytes is None else layer.live_bytes
