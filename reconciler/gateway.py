"""The gateway: the one HTTP endpoint that nodes call, and all they ever get to see of the control plane.

`POST /v1/sync` takes in a node's report and results, then waits until there is something for it to do.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog
from anyio import CapacityLimiter, to_thread
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reconciler.outage import Outage
from reconciler.settings import DEFAULT_EXTENSION
from reconciler.streams import StreamRefused, Streams
from reconciler.waiting import Waiter, WaitingNodes, Waker
from state import chores, policies, presence
from state.chore_kinds import APPLIES
from state.chore_wire import ChoreHandle
from state.database import Database, DatabaseUnavailable, Doorbell
from state.delivery import epochs_ahead, taken_back, undelivered
from state.lease import Refusal
from state.model import Limits
from state.nodes import authenticate_node
from state.reports import Ingested, UnusableReport, ingest
from state.wire import BEGIN_ANEW, OTHER_MACHINE, SyncReply, SyncRequest

# A report of the most pods that wire allows, with room to spare.
BODY_BYTES_MAX = 8 * 1024 * 1024
DATABASE_CALLS_MAX = 4
RETRY_AFTER_S = 2
ERRORS_SHOWN_MAX = 5

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Refused(Exception):
    """An answer other than 200, as problem+json. `code` is stable; `detail` says what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: dict[str, str] | None = None,
        after: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers
        self.after = after

    def response(self) -> Response:
        """As RFC 9457 wants it."""
        body = {
            "type": "about:blank",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        } | ({} if self.after is None else {"after": self.after})
        return JSONResponse(body, self.status, headers=self.headers, media_type="application/problem+json")


class Gateway:
    """The app's state: the database, the nodes that wait, and the thread that wakes them."""

    def __init__(
        self,
        db: Database,
        doorbell: Doorbell,
        limits: Limits,
        jitter: Callable[[], float] = random.random,
        extension: timedelta = DEFAULT_EXTENSION,
    ) -> None:
        self._db = db
        self._doorbell = doorbell
        self._limits = limits
        self._extension = extension
        self._jitter = jitter
        self._nodes = WaitingNodes()
        self._outage = Outage("database")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: CapacityLimiter | None = None
        self._streams = Streams(db, self._call)

    def app(self) -> Starlette:
        """The ASGI app."""
        routes = [
            Route("/v1/sync", self._sync, methods=["POST"]),
            Route("/v1/streams/{chore_id:uuid}", self._read_stream, methods=["GET"]),
            Route("/v1/streams/{chore_id:uuid}", self._send_stream, methods=["PUT"]),
            Route("/healthz", self._healthz, methods=["GET"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={Refused: _refuse})

    def close(self) -> None:
        """Answer all long polls at once, so that the server can stop; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._nodes.close)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._calls = CapacityLimiter(DATABASE_CALLS_MAX)
        waker = Waker(self._db, self._doorbell, self._nodes, self._loop, self._outage)
        waker.start()
        try:
            yield
        finally:
            self._loop = None
            await to_thread.run_sync(waker.stop)

    async def _healthz(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "nodes_waiting": len(self._nodes)})

    async def _read_stream(self, request: Request) -> Response:
        return await _streamed(self._streams.read(request))

    async def _send_stream(self, request: Request) -> Response:
        return await _streamed(self._streams.send(request))

    async def _sync(self, request: Request) -> Response:
        token = _bearer(request)
        message = _parse(await _body(request))
        ingested, chores_kept = await self._call(partial(self._take_in, message, token))
        if ingested.refusal is not None:
            raise _not_believed(ingested.refusal, message)
        epochs = await self._call(partial(epochs_ahead, self._db, message.node_id, message.report))
        reply = await self._wait(_after(message, ingested.accepted), chores_kept)
        told = {"accepted": ingested.accepted, "epochs": epochs}
        body = reply.model_copy(update=told).model_dump_json()
        return Response(body, media_type="application/json")

    def _take_in(self, message: SyncRequest, token: str) -> tuple[Ingested, tuple[ChoreHandle, ...]]:
        if not authenticate_node(self._db, message.node_id, token):
            raise _unauthorized(f"This token does not belong to a node {message.node_id!r}.")
        ingested = ingest(self._db, message, limits=self._limits, jitter=self._jitter)
        if not ingested.current:
            return ingested, ()
        for pod in message.presence.pods if message.presence else ():
            if pod.keep is not None:
                policies.answer(self._db, pod.pod_id, message.node_id, pod.keep, self._extension)
        return ingested, chores.take_in(self._db, message.node_id, message.chores, APPLIES, self._limits)

    async def _wait(self, message: SyncRequest, chores_kept: tuple[ChoreHandle, ...]) -> SyncReply:
        """What the node should do, as soon as there is something; nothing when its patience ends."""
        ends_at = asyncio.get_running_loop().time() + message.wait_s
        with self._nodes.waiting(message) as waiter:
            reply = await self._call(partial(self._news, message, chores_kept))
            while not (_has_news(reply) or waiter.look_at) and await _woken(waiter, ends_at):
                reply = await self._call(partial(self._news, message, chores_kept))
            told = await self._call(partial(presence.for_node, self._db, message.node_id, waiter.look_at))
        return reply.model_copy(update={"presence": told})

    def _news(self, message: SyncRequest, chores_kept: tuple[ChoreHandle, ...]) -> SyncReply:
        return SyncReply(
            actions=undelivered(self._db, message.node_id, message.in_hand),
            taken_back=taken_back(self._db, message.node_id, message.in_hand, message.ending),
            chores=chores.news(self._db, message.node_id, message.chores, chores_kept),
        )

    async def _call(self, function: Callable[[], T]) -> T:
        """Run `function`, which asks the database, in a thread; as many at once as there are connections."""
        try:
            result = await to_thread.run_sync(function, limiter=self._calls)
        except DatabaseUnavailable as error:
            self._outage.met(error)
            raise Refused(
                503,
                "database_unavailable",
                "The control plane cannot reach its database now. Pods go on running; try again.",
                {"Retry-After": str(RETRY_AFTER_S)},
            ) from error
        except UnusableReport as error:
            raise Refused(422, "unusable_report", f"The database refuses this report: {error}.") from error
        self._outage.over()
        return result


async def _streamed(answer: Awaitable[Response]) -> Response:
    try:
        return await answer
    except StreamRefused as error:
        raise Refused(error.status, error.code, str(error)) from error
    except ClientDisconnect as error:
        raise Refused(400, "cut_short", "The stream ended in its middle.") from error


def _after(message: SyncRequest, accepted: tuple[str, ...]) -> SyncRequest:
    """The rest of a call whose results were accepted: not in hand any more, and the node is told at once."""
    if not accepted:
        return message
    in_hand = tuple(action_id for action_id in message.in_hand if action_id not in accepted)
    return message.model_copy(update={"in_hand": in_hand, "wait_s": 0.0})


def _not_believed(refusal: Refusal, message: SyncRequest) -> Refused:
    """Only an agent that lives reads this answer: so what it says next is of one that lives."""
    if refusal.silent:
        detail = "A later run of this node's agent was heard, and is silent now. Begin a run after it."
        return Refused(409, BEGIN_ANEW, detail, after=refusal.boot_id)
    if refusal.other_machine:
        detail = (
            f"Another machine is heard under the name {message.node_id}. If this machine was made from a copy"
            " of that one's disk, stop one of them, or make a node of its own of it. If it is the same,"
            " booted anew, it is believed soon."
        )
        return Refused(409, OTHER_MACHINE, detail)
    detail = (
        "This report is not newer than the last one from this node. If no earlier call was under way,"
        " a second agent runs with the same node id: stop one of them."
    )
    return Refused(409, "stale_report", detail)


def _has_news(reply: SyncReply) -> bool:
    return bool(reply.actions or reply.taken_back or reply.chores)


async def _woken(waiter: Waiter, ends_at: float) -> bool:
    """Wait for news until `ends_at`; False when there is no point in looking again."""
    try:
        async with asyncio.timeout_at(ends_at):
            await waiter.news.wait()
    except TimeoutError:
        return False
    waiter.news.clear()
    return not waiter.ended


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise _unauthorized("Send the node's token: Authorization: Bearer ….")
    return token.strip()


def _unauthorized(detail: str) -> Refused:
    return Refused(401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise Refused(413, "too_large", f"A message may have {BODY_BYTES_MAX} bytes at most.")
    except ClientDisconnect as error:
        raise Refused(400, "cut_short", "The message ended in its middle.") from error
    return bytes(body)


def _parse(body: bytes) -> SyncRequest:
    try:
        return SyncRequest.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        if problems[0]["type"] == "json_invalid":
            raise Refused(400, "malformed_json", f"The message is not JSON: {problems[0]['msg']}.") from None
        shown = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in problems[:ERRORS_SHOWN_MAX]
        )
        raise Refused(422, "invalid_message", f"The message does not fit protocol 1: {shown}.") from None


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    if error.status < 500:
        log.warning("sync_refused", status=error.status, code=error.code, detail=error.detail)
    return error.response()
