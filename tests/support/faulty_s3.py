"""An HTTP front before a real S3 server that answers wrongly, late, in part or not at all when it is told to.

Requests are of one of the KINDS of what the agent asks; a fault is done to one request, or at random to many.
"""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from node_agent.archive.manifest import MANIFEST_NAME

SLOW_S = 1.5
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>a test says so</Message></Error>"

# What each fault may be done to. A `range` is read of a blob, a `get` is of a manifest; a `put` is of a small
# blob, a `put_new` is one on condition: of a manifest.
_ALL = ("get", "range", "head", "list", "put", "manifest", "part", "begin", "complete")
_BODIES = ("put", "manifest", "part")
APPLIES: dict[str, tuple[str, ...]] = {
    "500": _ALL,
    "503 slow down": _ALL,
    "expired credentials": ("get", "range", "put", "manifest", "part"),
    "409": ("put", "manifest", "complete"),
    "412 though nothing is there": ("put", "manifest", "complete"),
    "no such upload": ("part", "complete"),
    "200 with an error": ("get", "range", "put", "manifest", "part", "complete"),
    "slow": _ALL,
    "cut on the way up": _BODIES,
    "cut on the way down": ("get", "range", "list"),
    "done, and the answer lost": _ALL,
    "done, and answered with 500": _ALL,
    "a bit flipped on the way up": _BODIES,
    "a bit flipped on the way down": ("get", "range"),
}
_CODES = {
    "500": (500, "InternalError"),
    "503 slow down": (503, "SlowDown"),
    "expired credentials": (400, "ExpiredToken"),
    "409": (409, "ConditionalRequestConflict"),
    "412 though nothing is there": (412, "PreconditionFailed"),
    "no such upload": (404, "NoSuchUpload"),
    "200 with an error": (200, "InternalError"),
}


@dataclass
class FaultyS3:
    """What goes wrong: one fault at the next request of a kind (`arm`), or any at random (`rain`)."""

    upstream: tuple[str, int]
    url: str = ""
    done: Counter[str] = field(default_factory=Counter)
    _armed: dict[str, str] = field(default_factory=dict)
    _rng: random.Random | None = None
    _share: float = 0.0
    _left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, fault: str, kind: str) -> None:
        """This, once, to the next request of the kind."""
        assert kind in APPLIES[fault]
        with self._lock:
            self._armed[kind] = fault

    def rain(self, seed: int, share: float, faults_max: int) -> None:
        """Any fault, to this share of the requests, until so many were done."""
        with self._lock:
            self._rng, self._share, self._left = random.Random(seed), share, faults_max

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._armed.clear()
            self._left = 0

    @property
    def waiting(self) -> dict[str, str]:
        """What is armed, and was not asked for yet."""
        with self._lock:
            return dict(self._armed)

    def fault_for(self, kind: str) -> str | None:
        """What to do to this request."""
        with self._lock:
            fault = self._armed.pop(kind, None)
            if fault is None and self._rng is not None and self._left and self._rng.random() < self._share:
                fault = self._rng.choice([name for name, kinds in APPLIES.items() if kind in kinds] or [""])
                self._left -= 1
            if fault:
                self.done[fault] += 1
            return fault or None


def kind_of(method: str, target: str, headers: Any) -> str:
    """Which of the kinds a request is of."""
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    if method == "GET":
        if {"list-type", "uploads", "uploadId"} & query.keys():
            return "list"
        return "range" if "Range" in headers else "get"
    if method == "PUT":
        if "partNumber" in query:
            return "part"
        return "manifest" if parts.path.endswith(f"/{MANIFEST_NAME}") else "put"
    if method == "POST":
        return "begin" if "uploads" in query else "complete"
    return method.lower()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: FaultyS3

    def log_message(self, *_: Any) -> None:
        """Nothing: tests read the agent's log."""

    def _handle(self) -> None:
        fault = self.s3.fault_for(kind_of(self.command, self.path, self.headers))
        length = int(self.headers.get("Content-Length", 0))
        if fault == "cut on the way up":
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if fault in _CODES:
            self._answer_error(*_CODES[fault])
            return
        if fault == "slow":
            time.sleep(SLOW_S)
        if fault == "a bit flipped on the way up":
            body = _flipped(body)
        self._pass_on(fault, body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815 - the names that the base calls

    def _pass_on(self, fault: str | None, body: bytes) -> None:
        server = http.client.HTTPConnection(*self.s3.upstream, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            server.request(self.command, self.path, body or None, headers)
            answer = server.getresponse()
            data = answer.read()
        finally:
            server.close()
        if fault == "done, and the answer lost":
            self.close_connection = True
        elif fault == "done, and answered with 500":
            self._answer_error(500, "InternalError")
        else:
            self._answer(answer, data, fault)

    def _answer(self, answer: http.client.HTTPResponse, data: bytes, fault: str | None) -> None:
        if fault == "a bit flipped on the way down":
            data = _flipped(data)
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if fault == "cut on the way down":
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)

    def _answer_error(self, status: int, code: str) -> None:
        data = b"" if self.command == "HEAD" else ERROR.format(code).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _flipped(data: bytes) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of ours."""


@contextmanager
def faulty_s3(endpoint: str) -> Iterator[FaultyS3]:
    """A front on loopback while the block runs."""
    parts = urlsplit(endpoint)
    s3 = FaultyS3((parts.hostname or "", parts.port or 0))
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"s3": s3}))
    s3.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        with suppress(OSError):
            server.shutdown()
        server.server_close()
        thread.join()
