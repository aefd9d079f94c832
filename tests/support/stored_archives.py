"""A scripted node whose archives are real: a blob and a manifest each, in a real store."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from node_agent.archive import manifest as manifests
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.store import Store
from state.model import TargetKind
from state.wire import Action, ArchiveMade
from tests.support.scripted_node import ScriptedNode
from tests.support.stored_images import store_image


@dataclass
class StoringNode(ScriptedNode):
    """What it archives is in the store."""

    store: Store | None = None

    def _do(self, action: Action) -> ArchiveMade | None:
        made = super()._do(action)
        if made is None:
            return None
        assert self.store is not None
        if made.image_id is not None:
            store_image(self.store, "{}", b"base")
        return store_archive(self.store, action, made)


def store_archive(store: Store, action: Action, made: ArchiveMade) -> ArchiveMade:
    """Write a small archive for an action; what it made, with the keys and the digest as they are."""
    kind = TargetKind.POD if action.pod_id else TargetKind.WORKSPACE
    where = (kind, action.target, action.epoch, action.attempt)
    key, data = manifests.blob_key(*where, "tree.tar.zst"), f"{made.fingerprint} {action.id}".encode()
    with store.open_writer(key) as writer:
        writer.write(data)
        writer.commit()
    digest = hashlib.sha256(data).hexdigest()
    blob = BlobRef(key=key, size_bytes=len(data), sha256=digest, tar_bytes=10)
    manifest = Manifest(
        kind=kind,
        target_id=action.target,
        user_id=action.user_id,
        epoch=action.epoch,
        attempt=action.attempt,
        number=action.step.number,  # type: ignore[union-attr]
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        fingerprint={"tree": made.fingerprint},
        method="volume",
        blobs=(blob,),
        entries=1,
    )
    content = manifests.to_bytes(manifest)
    store.put_manifest(manifests.manifest_key(*where), content)
    where_to = {"manifest_key": manifests.manifest_key(*where), "manifest_digest": manifests.digest(content)}
    return made.model_copy(update=where_to | {"size_bytes": len(data)})
