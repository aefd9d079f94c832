"""Streams through the gateway, from a node to the API or the reverse; only a few chunks are ever kept.

Who shows a stream's key is the API; who shows a node's token is the node that has the chore.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from typing import TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from state.database import Database
from state.nodes import authenticate_node
from state.streams import EXPORT, IMPORTS, has_chore, has_key

CHUNKS_MAX = 8
STREAMS_MAX = 50
# How long a sender waits for its reader, and a reader for its sender.
MEET_TIMEOUT_S = 15.0
NODE_TIMEOUT_S = 120.0  # a node has to have time for the chore first
BEGIN_TIMEOUT_S = 300.0
# A reader that takes nothing for so long is given up: a node's worker waits for it.
STALL_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.5
KEY_HEADER = "X-Stream-Key"
_EXPORTS, _IMPORTS = frozenset({EXPORT}), frozenset(IMPORTS.values())

log = structlog.get_logger(__name__)
T = TypeVar("T")


class StreamRefused(Exception):
    """An answer other than 200. `code` is stable."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class _Cut(Exception):
    """The other side has gone before the end."""


class _Stream:
    """One reader, and at most one sender."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_MAX)
        self._gone = False
        self._cut = False

    async def give(self, chunk: bytes | None) -> None:
        """Hand on a chunk, or None for the end. Raises _Cut when the reader has gone, or takes nothing."""
        ends_at = asyncio.get_running_loop().time() + STALL_TIMEOUT_S
        while not self._gone and asyncio.get_running_loop().time() < ends_at:
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._chunks.put(chunk)
            except TimeoutError:
                continue
            return
        raise _Cut

    def cut(self) -> None:
        """The sender broke off: the reader must not take what it has for the whole."""
        self._cut = True

    async def chunks(self) -> AsyncIterator[bytes]:
        """For the reader. Raises _Cut in the middle when the sender breaks off."""
        try:
            while (chunk := await self._next()) is not None:
                yield chunk
        finally:
            self._gone = True

    async def _next(self) -> bytes | None:
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    return await self._chunks.get()
            except TimeoutError:
                if self._cut and self._chunks.empty():
                    raise _Cut from None


class Streams:
    """All streams of one gateway. `call` runs a function that asks the database."""

    def __init__(self, db: Database, call: Callable[[Callable[[], bool]], Awaitable[bool]]) -> None:
        self._db = db
        self._call = call
        self._open: dict[str, _Stream] = {}

    async def read(self, request: Request) -> Response:
        """`GET /v1/streams/{chore_id}`: begins when the sender does."""
        chore_id = str(request.path_params["chore_id"])
        await self._check(request, chore_id, by_key=_EXPORTS, by_node=_IMPORTS)
        if chore_id in self._open or len(self._open) >= STREAMS_MAX:
            raise StreamRefused(429, "too_many_streams", "It is read already, or too many others are.")
        stream = self._open[chore_id] = _Stream()
        try:
            await _begun(stream, request)
        except BaseException:  # a caller who hangs up cancels this: the place must be free again
            del self._open[chore_id]
            raise
        return StreamingResponse(self._given(chore_id, stream), media_type="application/octet-stream")

    async def _given(self, chore_id: str, stream: _Stream) -> AsyncIterator[bytes]:
        try:
            async for chunk in stream.chunks():
                yield chunk
        finally:
            self._open.pop(chore_id, None)

    async def _check(
        self, request: Request, chore_id: str, *, by_key: Collection[str], by_node: Collection[str]
    ) -> None:
        """Raises StreamRefused unless it is the API with the key, or the node that has the chore."""
        if KEY_HEADER in request.headers:
            key = request.headers[KEY_HEADER]
            if not await self._call(partial(has_key, self._db, by_key, chore_id, key)):
                raise StreamRefused(403, "stream_refused", "This key does not open this stream.")
            return
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        node_id, attempt = request.query_params.get("node", ""), request.query_params.get("attempt", "")
        if not await self._call(partial(authenticate_node, self._db, node_id, token)):
            raise StreamRefused(401, "unauthorized", "This token does not belong to this node.")
        number = int(attempt) if attempt.isascii() and attempt.isdigit() and len(attempt) < 10 else 0
        if not await self._call(partial(has_chore, self._db, by_node, chore_id, number, node_id)):
            raise StreamRefused(409, "chore_dropped", "This chore is not this node's any more.")

    async def send(self, request: Request) -> Response:
        """`PUT /v1/streams/{chore_id}`: answered when the reader has it all."""
        chore_id = str(request.path_params["chore_id"])
        await self._check(request, chore_id, by_key=_IMPORTS, by_node=_EXPORTS)
        patience_s = NODE_TIMEOUT_S if KEY_HEADER in request.headers else MEET_TIMEOUT_S
        stream = await self._meet(chore_id, patience_s)
        try:
            async for chunk in request.stream():
                if chunk:
                    await stream.give(chunk)
            await stream.give(None)
        except ClientDisconnect:
            stream.cut()
            raise
        except _Cut as error:
            raise StreamRefused(409, "reader_gone", "Whoever was reading has gone.") from error
        return Response(status_code=204)

    async def _meet(self, chore_id: str, patience_s: float) -> _Stream:
        """The stream whose reader waits; the chore is made before its reader is here."""
        ends_at = asyncio.get_running_loop().time() + patience_s
        while chore_id not in self._open and asyncio.get_running_loop().time() < ends_at:  # noqa: ASYNC110 (it may never come)
            await asyncio.sleep(_LOOK_EVERY_S / 5)
        stream = self._open.get(chore_id)
        if stream is None or stream.begun.is_set():
            raise StreamRefused(409, "reader_gone", "Nobody is reading this stream.")
        stream.begun.set()
        return stream


async def _begun(stream: _Stream, request: Request) -> None:
    ends_at = asyncio.get_running_loop().time() + BEGIN_TIMEOUT_S
    while not stream.begun.is_set():
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                await stream.begun.wait()
        except TimeoutError:
            if await request.is_disconnected():
                raise ClientDisconnect from None
            if asyncio.get_running_loop().time() > ends_at:
                raise StreamRefused(504, "nobody_sends", "No node has begun to send in time.") from None
