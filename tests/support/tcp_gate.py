"""A killable TCP way to a real server: connections through it can be cut, held up, and refused."""

import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

CHUNK_BYTES = 1 << 16


class TcpGate:
    """Passes everything on to `upstream_port` of this machine, until told otherwise. Never forgets bytes."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream = ("127.0.0.1", upstream_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._passing: set[socket.socket] = set()
        self._refusing = False
        self._requests, self._answers = threading.Event(), threading.Event()
        self._requests.set()
        self._answers.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection at once; new ones pass."""
        with self._lock:
            for end in self._passing:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Nobody passes while the block runs, and what was open is cut."""
        self._refusing = True
        self.cut()
        try:
            yield
        finally:
            self._refusing = False

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Connections stay open while the block runs, and not a byte arrives; afterwards all do."""
        with self.answers_held_up(), self.requests_held_up():
            yield

    def answers_held_up(self) -> AbstractContextManager[None]:
        """What is asked arrives, and what is answered does not, while the block runs; afterwards it does."""
        return _held_up(self._answers)

    def requests_held_up(self) -> AbstractContextManager[None]:
        """What is answered arrives, and nothing that is asked, while the block runs; afterwards it does."""
        return _held_up(self._requests)

    def close(self) -> None:
        """Leave nothing behind."""
        self._requests.set()
        self._answers.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._pass, args=(near,), daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        if self._refusing:
            near.close()
            return
        try:
            far = socket.create_connection(self._upstream)
        except OSError:
            near.close()
            return
        with self._lock:
            self._passing |= {near, far}
        back = threading.Thread(target=self._pump, args=(far, near, self._answers), daemon=True)
        back.start()
        self._pump(near, far, self._requests)
        back.join()
        with self._lock:
            self._passing -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, target: socket.socket, flowing: threading.Event) -> None:
        with suppress(OSError):  # either end was cut
            while data := source.recv(CHUNK_BYTES):
                flowing.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def _held_up(flowing: threading.Event) -> Iterator[None]:
    flowing.clear()
    try:
        yield
    finally:
        flowing.set()


@contextmanager
def tcp_gate(upstream_port: int) -> Iterator[TcpGate]:
    """A gate while the block runs."""
    gate = TcpGate(upstream_port)
    try:
        yield gate
    finally:
        gate.close()
