"""Reading an archive back, all of it, to know that it is still what was saved."""

import hashlib

from node_agent.archive.commit import read_manifest
from node_agent.archive.errors import ArchiveError
from node_agent.archive.manifest import BlobRef
from node_agent.chores import ChoreContext, ChoreError
from node_agent.named_archive import named_archive
from node_agent.store import StoreNotFound
from state.chore_wire import Payload


def scrub(context: ChoreContext) -> Payload:
    """The handler of the kind `scrub`. Raises ChoreError (`archive_corrupt`) naming all that is wrong."""
    request = named_archive(context)
    try:
        manifest = read_manifest(context.store, request.manifest_key, request.manifest_digest)
    except ArchiveError as error:
        raise _corrupt([str(error)]) from error
    total_bytes, done_bytes, wrong = manifest.size_bytes, 0, []
    for blob in manifest.blobs:
        trouble = _trouble(context, blob, done_bytes, total_bytes)
        wrong += [trouble] if trouble else []
        done_bytes += blob.size_bytes
    if wrong:
        raise _corrupt(wrong)
    return {"blobs": len(manifest.blobs), "bytes": done_bytes}


def _trouble(context: ChoreContext, blob: BlobRef, before_bytes: int, total_bytes: int) -> str | None:
    """What is wrong with a blob, read whole and within the budget."""
    running, size_bytes = hashlib.sha256(), 0
    try:
        with context.store.open_reader(blob.key) as chunks:
            for chunk in chunks:
                context.spend(len(chunk))
                running.update(chunk)
                size_bytes += len(chunk)
                context.note("reading back", before_bytes + size_bytes, total_bytes)
    except StoreNotFound:
        return f"blob {blob.key} is not in the store"
    if (size_bytes, running.hexdigest()) == (blob.size_bytes, blob.sha256):
        return None
    return (
        f"blob {blob.key} has {size_bytes} bytes with SHA-256 {running.hexdigest()}; its manifest says "
        f"{blob.size_bytes} bytes with {blob.sha256}"
    )


def _corrupt(wrong: list[str]) -> ChoreError:
    return ChoreError("; ".join(wrong), code="archive_corrupt", permanent=True, detail={"wrong": wrong[:20]})
