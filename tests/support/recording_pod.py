"""An HTTP and WebSocket server in place of a pod's IDE, which remembers all that reached it."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

START_TIMEOUT_S_MAX = 60.0
# What ends so is a file that takes for ever.
DOWNLOAD = "/vscode-remote-resource"

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Seen:
    """One request as it reached the pod. `target` is the raw path with the query."""

    method: str
    target: str
    headers: Headers
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Every header of this name."""
        return [value for key, value in self.headers if key == name.lower()]


@dataclass
class RecordingPod:
    """Listens on loopback. `answers` maps a raw path to the headers and status it is answered with."""

    port: int
    seen: list[Seen] = field(default_factory=list)
    answers: dict[str, tuple[int, Headers]] = field(default_factory=dict)

    @property
    def upstream(self) -> str:
        """Its address as claims have it."""
        return f"127.0.0.1:{self.port}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._echo(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.seen.append(_seen(scope, body))
        if scope["path"].endswith(DOWNLOAD):
            await _pour(receive, send)
            return
        status, headers = self.answers.get(scope["raw_path"].decode(), (200, []))
        encoded = [(key.encode(), value.encode()) for key, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": b"the pod on %d\n" % self.port})

    async def _echo(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(_seen(scope))
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"].endswith("/talks"):
            await _talk(receive, send)
            return
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


async def _pour(receive: Any, send: Any) -> None:
    """A piece of a file ten times a second until the client is gone."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    gone = asyncio.ensure_future(receive())
    while not (await asyncio.wait([gone], timeout=0.1))[0]:
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})


async def _talk(receive: Any, send: Any) -> None:
    """A word a second until the client is gone, as an IDE does that has something to tell."""
    gone = asyncio.ensure_future(receive())
    while not (await asyncio.wait([gone], timeout=1))[0]:
        await send({"type": "websocket.send", "text": "tick"})


def _seen(scope: Any, body: bytes = b"") -> Seen:
    query = scope["query_string"].decode()
    target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"]]
    return Seen(scope.get("method", "SOCKET"), target, headers, body)


@contextlib.contextmanager
def recording_pod(port: int = 0) -> Iterator[RecordingPod]:
    """A recording pod on a free port, or on this one, until the end of the block."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        pod = RecordingPod(listener.getsockname()[1])
        # No pings: they would tell the pod who vanished, which code-server hears of from nginx only.
        config = uvicorn.Config(
            pod, log_level="error", lifespan="off", ws="websockets-sansio", ws_ping_interval=None
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            _await_started(server)
            yield pod
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


def _await_started(server: uvicorn.Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S_MAX
    while not server.started:
        assert time.monotonic() < deadline, "the recording pod did not start"
        time.sleep(0.01)
