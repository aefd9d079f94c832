"""Reading an archive back, all of it, to know that it is still what was saved."""

import hashlib

from pydantic import BaseModel, ConfigDict, ValidationError

from node_agent.archive.commit import read_manifest
from node_agent.archive.errors import ArchiveError
from node_agent.archive.manifest import BlobRef
from node_agent.chores import ChoreContext, ChoreError
from node_agent.store import StoreNotFound
from node_agent.sweep import check_installation
from state.chore_wire import Payload


class ScrubRequest(BaseModel):
    """Which archive."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    store_id: str
    manifest_key: str
    manifest_digest: str


def scrub(context: ChoreContext) -> Payload:
    """The handler of the kind `scrub`. Raises ChoreError (`archive_corrupt`) naming all that is wrong."""
    try:
        request = ScrubRequest.model_validate(context.chore.request)
    except ValidationError as error:
        raise ChoreError("The request cannot be read.", code="unreadable", permanent=True) from error
    check_installation(context.store, request.store_id)
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
