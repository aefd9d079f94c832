"""The chores `import_files` and `import_image`: what somebody sends through the gateway becomes archives.

Of files, one of a workspace; of an image, one of a pod, and one of its workspace if the image has its files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from node_agent.archive.commit import ArchiveRequest, ArchiveResult, write_archive
from node_agent.archive.errors import ArchiveError
from node_agent.archive.export import Lost
from node_agent.archive.image_store import read_image
from node_agent.archive.incoming import import_tree, unpack
from node_agent.archive.oci_incoming import Opened, files_tree, look_through, open_image, pod_tree
from node_agent.chores import ChoreContext, ChoreError, Handler
from node_agent.gateway_client import Gateway, GatewayError
from node_agent.host import disk_errors
from node_agent.parts import Parts
from state.chore_wire import Chore, Payload
from state.copy_wire import IMPORT_ATTEMPTS, IMPORT_ATTEMPTS_FROM, CopyMade, CopyResult
from state.model import TargetKind
from state.wire import ArchiveMade, Identifier

IMPORT = "import_files"
IMPORT_IMAGE = "import_image"
METHOD = "imported"


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore")

    workspace_id: Identifier
    user_id: str
    epoch: int


class _ImageAsked(_Asked):
    pod_id: Identifier
    # What the pod is made of, if it ever was.
    image_id: str | None = None


def import_handler(gateway: Gateway, parts: Parts) -> Handler:
    """What does `import_files`. It is never tried again: whoever asked asks anew."""

    def take_in(context: ChoreContext) -> Payload:
        asked = _Asked.model_validate(context.chore.request)
        store = context.store.of_user(asked.user_id)
        with _told(), parts.ways.scratch() as folder, gateway.read_stream(context.chore.handle) as chunks:
            request = _request(asked, context.chore, TargetKind.WORKSPACE, asked.workspace_id)
            made = import_tree(store, request, _counted(context, chunks), folder)
        return _copy(request, made).model_dump(mode="json")

    return take_in


def import_image_handler(gateway: Gateway, parts: Parts) -> Handler:
    """What does `import_image`. It is never tried again either."""

    def take_in(context: ChoreContext) -> Payload:
        asked = _ImageAsked.model_validate(context.chore.request)
        image = read_image(context.store, asked.image_id) if asked.image_id else None
        known = {layer.diff_id for layer in image.layers} if image else set[str]()
        with _told(), parts.ways.scratch() as spool, disk_errors("take in an image"):
            with gateway.read_stream(context.chore.handle) as chunks:
                opened = open_image(context.store, _counted(context, chunks), spool, known)
            made = _archived(context, parts, asked, opened)
        return CopyResult(made=made).model_dump(mode="json")

    return take_in


def _archived(
    context: ChoreContext, parts: Parts, asked: _ImageAsked, opened: Opened
) -> tuple[CopyMade, ...]:
    """The files first: they are saved when the pod is."""
    layer, lost, made = look_through(opened), Lost(), []
    store = context.store.of_user(asked.user_id)
    if layer.has_files:
        request = _request(asked, context.chore, TargetKind.WORKSPACE, asked.workspace_id)
        with parts.ways.scratch() as folder:
            unpack(files_tree(opened, lost), folder)
            made.append(_copy(request, write_archive(store, request, folder)))
    request = _request(asked, context.chore, TargetKind.POD, asked.pod_id)
    with parts.ways.scratch() as folder:
        unpack(pod_tree(opened, layer, lost), folder)
        of_image = {"image_id": opened.base.image_id, "method": "overlay2-upper"}
        told = {"notices": (*opened.notices, *lost.sentences())}
        request = replace(request, **of_image, **told)  # type: ignore[arg-type]
        made.append(_copy(request, write_archive(store, request, folder)))
    return tuple(made)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        raise ChoreError(str(error), code=error.code, permanent=True) from error
    except GatewayError as error:
        raise ChoreError(str(error), code="stream_broken", permanent=True) from error


def _copy(request: ArchiveRequest, made: ArchiveResult) -> CopyMade:
    archive = ArchiveMade(
        manifest_key=made.manifest_key,
        manifest_digest=made.manifest_digest,
        fingerprint=made.manifest.fingerprint[METHOD],
        size_bytes=made.manifest.size_bytes,
        image_id=made.manifest.image_id,
        notices=made.manifest.notices,
    )
    return CopyMade(
        kind=request.kind,
        target_id=request.target_id,
        number=request.number,
        attempt=request.attempt,
        archive=archive,
    )


def _request(asked: _Asked, chore: Chore, kind: TargetKind, target_id: str) -> ArchiveRequest:
    return ArchiveRequest(
        kind=kind,
        target_id=target_id,
        user_id=asked.user_id,
        epoch=asked.epoch,
        attempt=IMPORT_ATTEMPTS_FROM + (UUID(chore.id).int + chore.attempt) % IMPORT_ATTEMPTS,
        number=0,
        created_at=datetime.now(UTC),
        fingerprint={METHOD: f"{chore.id}-{chore.attempt}"},
        method="volume",
    )


def _counted(context: ChoreContext, chunks: Iterator[bytes]) -> Iterator[bytes]:
    taken_bytes = 0
    for chunk in chunks:
        context.spend(len(chunk))
        taken_bytes += len(chunk)
        context.note("receiving", taken_bytes, None)
        yield chunk
