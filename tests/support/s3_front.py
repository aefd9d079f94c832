"""A TCP front before an S3 server: counts what is sent, stalls, cuts, and answers uploads' last requests."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

RECEIVE_BYTES = 1 << 16


@dataclass
class Front:
    """What has passed towards the server, and what is to go wrong."""

    upstream: tuple[str, int]
    url: str = ""
    sent_bytes: int = 0
    # After so many bytes nothing passes any more; connections stay open for as long as the client lives.
    stall_after_bytes: int | None = None
    # After so many bytes every connection is cut at once.
    cut_after_bytes: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    # For one complete request each: bytes are the answer, and the server never hears of it; None passes the
    # request on and loses the answer.
    answers: list[bytes | None] = field(default_factory=list)
    serving: list[threading.Thread] = field(default_factory=list)

    def wait_until_served(self) -> None:
        """Until nothing of clients that are gone is under way: the system holds megabytes for them."""
        for thread in self.serving:
            thread.join(timeout=60)
            assert not thread.is_alive()

    def heal(self) -> None:
        """Nothing goes wrong any more; the count starts anew."""
        self.stall_after_bytes = self.cut_after_bytes = None
        self.sent_bytes = 0


@contextmanager
def front_before(endpoint: str) -> Iterator[Front]:
    """Listens on loopback while the block runs; its threads end with their connections."""
    parts = urlsplit(endpoint)
    front = Front((parts.hostname or "", parts.port or 0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        front.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=_accept, args=(listener, front), daemon=True).start()
        try:
            yield front
        finally:
            # Closing alone does not wake an accept.
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, front: Front) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            thread = threading.Thread(target=_serve, args=(client, front), daemon=True)
            front.serving.append(thread)
            thread.start()


def _serve(client: socket.socket, front: Front) -> None:
    with suppress(OSError), client, socket.create_connection(front.upstream) as server:
        threading.Thread(target=_pass_back, args=(server, client), daemon=True).start()
        try:
            _pass_on(client, server, front)
        finally:
            # Closing alone tells nobody while another thread reads there.
            server.shutdown(socket.SHUT_RDWR)


def _pass_on(client: socket.socket, server: socket.socket, front: Front) -> None:
    while data := client.recv(RECEIVE_BYTES):
        if front.answers and data.startswith(b"POST ") and b"uploadId=" in data.partition(b"\r\n")[0]:
            _answer(client, server, front.answers.pop(0), data)
            return
        front.sent_bytes += len(data)
        if _is_past(front.stall_after_bytes, front):
            front.stalled.set()
            _swallow(client)
            return
        if _is_past(front.cut_after_bytes, front):
            return
        server.sendall(data)


def _swallow(client: socket.socket) -> None:
    while client.recv(RECEIVE_BYTES):
        pass


def _is_past(bound: int | None, front: Front) -> bool:
    return bound is not None and front.sent_bytes > bound


def _answer(client: socket.socket, server: socket.socket, answer: bytes | None, request: bytes) -> None:
    head, _, body = request.partition(b"\r\n\r\n")
    length = next(
        int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += client.recv(RECEIVE_BYTES)
    if answer is not None:
        client.sendall(answer)
        return
    # The server's answer goes nowhere: the client's end is closed before it comes.
    client.shutdown(socket.SHUT_RDWR)
    with socket.create_connection(server.getpeername()) as another:
        another.sendall(head + b"\r\n\r\n" + body)
        another.recv(RECEIVE_BYTES)


def _pass_back(server: socket.socket, client: socket.socket) -> None:
    with suppress(OSError):
        while data := server.recv(RECEIVE_BYTES):
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)
