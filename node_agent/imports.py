"""The chore `import_files`: what somebody sends through the gateway becomes an archive of a workspace."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from node_agent.archive.commit import ArchiveRequest
from node_agent.archive.errors import ArchiveError
from node_agent.archive.incoming import import_tree
from node_agent.chores import ChoreContext, ChoreError, Handler
from node_agent.gateway_client import Gateway, GatewayError
from node_agent.parts import Parts
from state.chore_wire import Chore, Payload
from state.copy_wire import CopyMade
from state.model import TargetKind
from state.wire import ArchiveMade, Identifier

IMPORT = "import_files"
# Attempts are part of store keys (LAW 5): drawn above those of steps and of copies, each once.
ATTEMPTS_FROM = 2 * 10**9
ATTEMPTS = 10**8
METHOD = "imported"


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore")

    workspace_id: Identifier
    user_id: str
    epoch: int


def import_handler(gateway: Gateway, parts: Parts) -> Handler:
    """What does the chore. It is never tried again: whoever asked asks anew."""

    def take_in(context: ChoreContext) -> Payload:
        asked = _Asked.model_validate(context.chore.request)
        try:
            with parts.ways.scratch() as folder, gateway.read_stream(context.chore.handle) as chunks:
                request = _request(asked, context.chore)
                made = import_tree(context.store, request, _counted(context, chunks), folder)
        except ArchiveError as error:
            raise ChoreError(str(error), code=error.code, permanent=True) from error
        except GatewayError as error:
            raise ChoreError(str(error), code="stream_broken", permanent=True) from error
        archive = ArchiveMade(
            manifest_key=made.manifest_key,
            manifest_digest=made.manifest_digest,
            fingerprint=made.manifest.fingerprint[METHOD],
            size_bytes=made.manifest.size_bytes,
            notices=made.manifest.notices,
        )
        copy = CopyMade(
            kind=TargetKind.WORKSPACE,
            target_id=asked.workspace_id,
            number=request.number,
            attempt=request.attempt,
            archive=archive,
        )
        return copy.model_dump(mode="json")

    return take_in


def _request(asked: _Asked, chore: Chore) -> ArchiveRequest:
    return ArchiveRequest(
        kind=TargetKind.WORKSPACE,
        target_id=asked.workspace_id,
        user_id=asked.user_id,
        epoch=asked.epoch,
        attempt=ATTEMPTS_FROM + (UUID(chore.id).int + chore.attempt) % ATTEMPTS,
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
