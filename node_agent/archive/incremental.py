"""The next archive of a tree that this node has saved or restored before: what it can leave where it is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from node_agent.archive.changes import LayerPlan, plan_layer
from node_agent.archive.errors import CaptureFailed
from node_agent.archive.fingerprint import record_tree
from node_agent.archive.layer_stream import read_dead
from node_agent.archive.layers import INDEX_BYTES_MAX, encode_index
from node_agent.archive.manifest import BlobRef, Manifest
from node_agent.archive.memory import Memory
from node_agent.archive.records import await_tick, line_of, member_name, writing
from node_agent.archive.restore import Origins
from node_agent.store import Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Base:
    """The archive that the database holds of the target now, read and checked."""

    digest: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Increment:
    """What a plan says on top of a base: `kept` layers with their live bytes counted anew, and the index."""

    base: Base
    plan: LayerPlan
    kept: tuple[BlobRef, ...]
    index: bytes


def plan_increment(
    store: Store, memory: Memory, base: Base, source_dir: Path, scanned: Path, folder: Path
) -> Increment | None:
    """None asks for a full archive: nothing trusted is known of the tree, or a full one costs less.

    Raises ArchiveCorrupt when the base's index is not as its manifest says, StoreError.
    """
    manifest, baseline = base.manifest, None
    with doubted("look up"):
        baseline = memory.baseline(manifest.kind, manifest.target_id, source_dir)
    if baseline is None:
        return None
    compacted = baseline.manifest_digest != base.digest
    if compacted and (baseline.tree is None or baseline.tree != manifest.tree or len(manifest.layers) > 1):
        return None
    dead, tar_bytes = read_dead(store, manifest), [layer.tar_bytes for layer in manifest.layers]
    with doubted("compare"):
        plan = plan_layer(scanned, baseline.records, tar_bytes, dead, folder, one_layer=compacted)
        index = encode_index(plan.dead) if plan else b""
        if plan and len(index) <= INDEX_BYTES_MAX:
            kept = zip(manifest.layers, plan.live_bytes, strict=False)
            return Increment(base, plan, tuple(_with_live(layer, live) for layer, live in kept), index)
    return None


def remember_saved(memory: Memory, manifest: Manifest, digest: str, source_dir: Path, records: Path) -> None:
    """The records are of a tree that was just saved."""
    with doubted("remember"):
        memory.keep(manifest, digest, source_dir, records)


def remember_restored(
    memory: Memory,
    manifest: Manifest,
    digest: str,
    target_dir: Path,
    origins: Origins,
) -> None:
    """Take down a tree that was just restored, before anybody else writes to it.

    Waits for a tick of the kernel's clock first: else most of a small tree could not be trusted.
    """
    trusted_before_ns = await_tick()
    with doubted("remember"), memory.drafts() as folder:
        if folder is None:
            return
        records = folder / "restored"
        with writing(records) as writer:

            def record(path: bytes, seen: os.stat_result, identity: bytes) -> None:
                layer = origins.layer_of(member_name(path))
                writer.append_line(line_of(layer, path, seen, identity, trusted_before_ns))

            record_tree(target_dir, record)
        memory.keep(manifest, digest, target_dir, records)


@contextmanager
def doubted(what: str) -> Iterator[None]:
    """Whatever goes wrong with this node's memory, a full archive is right; it is told in the log alone."""
    try:
        yield
    except (OSError, ValueError, CaptureFailed) as error:
        log.warning(
            "archive.memory", doing=what, why=str(error), consequence="the next archive is a full one"
        )


def _with_live(layer: BlobRef, live_bytes: int) -> BlobRef:
    return layer.model_copy(update={"live_bytes": min(live_bytes, layer.tar_bytes)})
