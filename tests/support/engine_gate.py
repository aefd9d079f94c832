"""The machine's real engine behind a socket of our own, which a test can take away and bring back."""

import re
import socket
import threading
from contextlib import suppress
from pathlib import Path

ENGINE_SOCKET = "/var/run/docker.sock"
CHUNK_BYTES = 1 << 16
QUEUE_LENGTH = 64


class EngineGate:
    """Passes everything on while it is open; while it is shut, nobody answers at `url`."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._passing: set[socket.socket] = set()
        self.open()

    def open(self) -> None:
        """The engine answers (again)."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(QUEUE_LENGTH)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """The engine is away: what was open is cut, and connecting is refused."""
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink()
        with self._lock:
            for end in self._passing:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # it was shut
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(ENGINE_SOCKET)
                threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with self._lock:
            self._passing |= {near, far}
        back = threading.Thread(target=_pump, args=(far, near), daemon=True)
        back.start()
        _pump(near, far)
        back.join()
        with self._lock:
            self._passing -= {near, far}
        near.close()
        far.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either end was cut
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class EngineOfVersion(EngineGate):
    """The real engine, which says that it speaks another version of the API."""

    def __init__(self, path: Path, api_version: str) -> None:
        self._said = b'"ApiVersion":"%s"' % api_version.encode()
        super().__init__(path)

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            far.sendall(near.recv(CHUNK_BYTES))
            near.sendall(re.sub(rb'"ApiVersion":"[0-9.]{4}"', self._said, far.recv(CHUNK_BYTES)))
        near.close()
        far.close()
