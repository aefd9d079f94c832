"""How bench/proxy.py asks: wrk for load, raw sockets for echoes, and clients that retry as browsers do."""

import base64
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.proxy_echo import FRAME, REPLY
from bench.proxy_fronts import Front, UnavailableError

SCRIPT = Path(__file__).with_name("requests.lua")
TIMEOUT_S = 20.0
SLICE_S = 0.05
# What a turn takes besides its slices, at most: a slice that ends late on a busy machine.
SLICES_TAKE = 1.2
_HEAD_BYTES_MAX = 16_384


@dataclass(frozen=True, slots=True)
class Load:
    """What one burst of requests came to."""

    requests: int
    seconds: float
    p99_us: int
    failed: int

    @property
    def per_s(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def burst(front: Front, targets: Sequence[tuple[str, str]], connections: int, seconds: int) -> Load:
    """Ask for `targets` (path, Cookie header) in turn. Raises `RuntimeError` if a request failed."""
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as listed:
        listed.writelines(f"{path} {cookie}\n" for path, cookie in targets)
        listed.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT)]
        done = subprocess.run(
            [*command, f"https://127.0.0.1:{front.port}", "--", listed.name],
            capture_output=True,
            text=True,
            timeout=seconds + TIMEOUT_S,
            check=True,
        )
    load = Load(**json.loads(done.stdout.strip().splitlines()[-1]))
    if load.failed:
        raise RuntimeError(f"{front.name}: {load.failed} of {load.requests} requests failed")
    return load


@dataclass(frozen=True, slots=True)
class Slices:
    """What a front did in its slices."""

    requests: int
    seconds: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Requests per second of its own slices."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor time of its worker per request, in microseconds."""
        return 1e6 * self.cpu_s / self.requests


def in_turns(
    fronts: Sequence[Front],
    targets: Mapping[str, Sequence[tuple[str, str]]],
    turns: int,
    *,
    slice_s: float = SLICE_S,
    connections: int = 16,
) -> dict[str, Slices]:
    """What each front did, by its name.

    A client for each asks without a pause, but only one of them at a time is let go on, for `slice_s`; who is
    first changes from turn to turn. So what else the machine does meets all of them alike. Raises
    `RuntimeError` if a request failed.
    """
    lasting_s = math.ceil(turns * len(fronts) * slice_s * SLICES_TAKE) + 1
    with ExitStack() as stack:
        clients = [
            stack.enter_context(_waiting_client(front, targets[front.name], lasting_s, connections))
            for front in fronts
        ]
        before = [front.cpu_s() for front in fronts]
        for number in range(turns):
            for client in clients if number % 2 else reversed(clients):
                client.send_signal(signal.SIGCONT)
                time.sleep(slice_s)
                client.send_signal(signal.SIGSTOP)
        told = [_ended(client, lasting_s) for client in clients]
        spent = [front.cpu_s() - began for front, began in zip(fronts, before, strict=True)]
    for front, one in zip(fronts, told, strict=True):
        if one["failed"]:
            raise RuntimeError(f"{front.name}: {one['failed']} of {one['requests']} requests failed")
    triples = zip(fronts, spent, told, strict=True)
    return {front.name: Slices(one["requests"], turns * slice_s, cpu_s) for front, cpu_s, one in triples}


@contextmanager
def _waiting_client(
    front: Front, targets: Sequence[tuple[str, str]], lasting_s: int, connections: int
) -> Iterator[subprocess.Popen[str]]:
    """wrk that is stopped, and ends by itself this long after it was started, if it may."""
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as listed:
        listed.writelines(f"{path} {cookie}\n" for path, cookie in targets)
        listed.flush()
        # Nothing is answered while a client is stopped: that is no failure.
        options = ["-t1", f"-c{connections}", f"-d{lasting_s}s", "--timeout", "600s", "-s", str(SCRIPT)]
        command = ["wrk", *options, f"https://127.0.0.1:{front.port}", "--", listed.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            client.send_signal(signal.SIGSTOP)
            try:
                yield client
            finally:
                client.kill()


def _ended(client: subprocess.Popen[str], lasting_s: int) -> dict[str, int]:
    """What it tells, once its time is over: it sees that when it goes on."""
    client.send_signal(signal.SIGCONT)
    told, _ = client.communicate(timeout=lasting_s + TIMEOUT_S)
    line: dict[str, int] = json.loads(told.strip().splitlines()[-1])
    return line


class EchoSocket:
    """One WebSocket through a proxy to the echo backend. Raises `UnavailableError` when refused."""

    def __init__(self, front: Front, pod: str, cookie: str) -> None:
        plain = socket.create_connection(("127.0.0.1", front.port), timeout=TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = front.site.tls.wrap_socket(plain, server_hostname="localhost") if front.tls else plain
        host = f"localhost:{front.port}"
        self._socket.sendall(
            f"GET /pods/{pod}/socket HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\n"
            f"Cookie: {cookie}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES_MAX and (came := self._socket.recv(4096)):
            head += came
        if not head.startswith(b"HTTP/1.1 101"):
            raise UnavailableError(f"{front.name} refused a socket: {head[:60]!r}")

    def trip(self) -> float:
        """Seconds until a frame has come back. Raises `OSError` when the socket was cut."""
        began = time.perf_counter()
        self._socket.sendall(FRAME)
        missing = len(REPLY)
        while missing:
            came = self._socket.recv(missing)
            if not came:
                raise ConnectionResetError("cut")
            missing -= len(came)
        return time.perf_counter() - began

    def alive(self) -> bool:
        """Whether it still echoes."""
        try:
            self.trip()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Without a word."""
        self._socket.close()


def opening(front: Front, pod: str) -> float:
    """Seconds from following a link to an echo through a socket. Raises `UnavailableError` when refused."""
    began = time.perf_counter()
    connection = http.client.HTTPSConnection(
        "127.0.0.1", front.port, context=front.site.tls, timeout=TIMEOUT_S
    )
    connection.request("GET", front.link(pod))
    redeemed = connection.getresponse()
    redeemed.read()
    if redeemed.status not in (302, 303):
        raise UnavailableError(f"{front.name} answered a fresh link with {redeemed.status}")
    cookie = (redeemed.getheader("Set-Cookie") or "").partition(";")[0]
    connection.request("GET", f"/pods/{pod}/", headers={"Cookie": cookie})
    connection.getresponse().read()
    one = EchoSocket(front, pod, cookie)
    one.trip()
    seconds = time.perf_counter() - began
    one.close()
    connection.close()
    return seconds


@contextmanager
def open_sockets(front: Front, opened: Sequence[tuple[str, str]]) -> Iterator[list[EchoSocket]]:
    """Sockets to these (pod, Cookie header), each having echoed once."""
    with ExitStack() as stack:
        sockets = []
        for pod, cookie in opened:
            one = EchoSocket(front, pod, cookie)
            stack.callback(one.close)
            one.trip()
            sockets.append(one)
        yield sockets


@dataclass
class Browsers:
    """Threads that ask without a pause and count what fails.

    As a browser does, a GET on a kept connection that was closed before any answer is asked once more on a
    new one (RFC 9110, 9.2.2); these are counted apart.
    """

    front: Front
    targets: Callable[[], Sequence[tuple[str, str]]]
    threads: int = 4
    asked: int = 0
    again: int = 0
    failed: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask until the end of the block."""
        threads = [threading.Thread(target=self._ask) for _ in range(self.threads)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        connection = self._connection()
        while not self._over.is_set():
            for path, cookie in self.targets():
                kept = connection.sock is not None
                good = self._once(connection, path, cookie)
                repeated = not good and kept
                if repeated:
                    connection.close()
                    good = self._once(connection, path, cookie)
                with self._lock:
                    self.asked, self.again = self.asked + 1, self.again + repeated
                    self.failed += not good
                if self._over.is_set():
                    break
        connection.close()

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self.front.port, context=self.front.site.tls, timeout=TIMEOUT_S
        )

    @staticmethod
    def _once(connection: http.client.HTTPSConnection, path: str, cookie: str) -> bool:
        try:
            connection.request("GET", path, headers={"Cookie": cookie})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
        return answer.status == 200
