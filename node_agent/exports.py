"""The chore `export`: archives as one stream, for somebody who reads it at the gateway."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from node_agent.archive.commit import read_manifest
from node_agent.archive.errors import ArchiveError
from node_agent.archive.export import Part, as_tar, as_zip
from node_agent.archive.oci import as_oci
from node_agent.chores import ChoreContext, ChoreError, Handler
from node_agent.gateway_client import Gateway, GatewayError
from node_agent.store import Store
from state.chore_wire import Payload

EXPORT = "export"
Folder = Annotated[str, Field(pattern=r"^[a-z]{0,20}$")]


class _PartAsked(BaseModel):
    model_config = ConfigDict(extra="ignore")

    manifest_key: str
    manifest_digest: str
    folder: Folder = ""


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore")

    form: Literal["tar", "zip", "oci"]
    parts: Annotated[list[_PartAsked], Field(min_length=1, max_length=2)]


_FORMS: Mapping[str, Callable[[Store, list[Part]], Iterator[bytes]]] = {
    "tar": as_tar,
    "zip": as_zip,
    "oci": as_oci,
}


def export_handler(gateway: Gateway) -> Handler:
    """What does the chore. It is never tried again: whoever asked asks anew."""

    def export(context: ChoreContext) -> Payload:
        try:
            sent = _Counted(context, _chunks(context))
            gateway.send_stream(context.chore.handle, iter(sent))
        except ArchiveError as error:
            raise ChoreError(str(error), code=error.code, permanent=True) from error
        except GatewayError as error:
            raise ChoreError(str(error), code="stream_broken", permanent=True) from error
        return {"sent_bytes": sent.sent_bytes}

    return export


class _Counted:
    def __init__(self, context: ChoreContext, chunks: Iterator[bytes]) -> None:
        self._context = context
        self._chunks = chunks
        self.sent_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._context.spend(len(chunk))
            self.sent_bytes += len(chunk)
            self._context.note("sending", self.sent_bytes, None)
            yield chunk


def _chunks(context: ChoreContext) -> Iterator[bytes]:
    """Not begun without the first bytes: what cannot be given in this form is refused before that."""
    try:
        asked = _Asked.model_validate(context.chore.request)
    except ValidationError as error:
        raise ChoreError(f"The request cannot be read: {error}", code="unreadable", permanent=True) from error
    parts = [
        Part(read_manifest(context.store, part.manifest_key, part.manifest_digest), part.folder)
        for part in asked.parts
    ]
    chunks = _FORMS[asked.form](context.store, parts)
    first = next(chunks, b"")
    return _again(first, chunks)


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
