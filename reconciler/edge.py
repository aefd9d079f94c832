"""nginx's word on each socket that opens or ends: hints to have nodes look sooner, and nothing else (LAW 1).

Lines come over UDP, so they may be lost, doubled, or made up by whoever reaches the port. No wish is ever
written for one: the most that a line brings about is that a node looks at a pod of its own once more.
"""

import json
import re
import socket
import threading
from collections import Counter
from contextlib import suppress

import structlog

from reconciler.outage import Outage
from state.database import Database, DatabaseUnavailable
from state.presence import LOOKS_ASKED_MAX, ask_to_look

# A burst of 1,500 lines overflows the kernel's default; 4,500 fitted into this without a loss.
RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024
LINE_BYTES_MAX = 4096
# Lines of one moment are asked about together; by then a socket that ended at nginx has ended in the pod too.
GATHER_S = 0.2
_POD_ID = re.compile(r"p-[a-z2-7]{12}", re.ASCII)
_EVENTS = ("open", "close")

log = structlog.get_logger(__name__)


def pod_of(line: bytes) -> str | None:
    """The pod that a line is about; None for what is no line of ours."""
    start = line.find(b"{")
    if start < 0 or len(line) > LINE_BYTES_MAX:
        return None
    try:
        said = json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("event") not in _EVENTS:
        return None
    pod = said.get("pod")
    return pod if isinstance(pod, str) and _POD_ID.fullmatch(pod) else None


def listen(host: str, port: int) -> socket.socket:
    """The bound socket, with a large buffer. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_DGRAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        with suppress(OSError):  # beyond the system's bound: only root may
            listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.settimeout(GATHER_S)
    return listener


_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it


class Hints:
    """Reads the lines and asks, in a thread of its own. `counts`: lines by what became of them."""

    def __init__(self, db: Database, listener: socket.socket, outage: Outage) -> None:
        self._db = db
        self._listener = listener
        self._outage = outage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
        self.counts: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the end."""
        self._stop.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            pods = self._gather()
            if not pods or self._stop.wait(GATHER_S):
                continue
            try:
                self.counts["asked"] += ask_to_look(self._db, pods)
            except DatabaseUnavailable as error:
                self._outage.met(error)
            except Exception as error:  # a hint that cannot be taken must not end the hints to come
                log.error("hints_failed", error=repr(error), exc_info=error)

    def _gather(self) -> set[str]:
        """The pods of the lines that are there, at most as many as can be asked about at once."""
        pods: set[str] = set()
        while len(pods) < LOOKS_ASKED_MAX and not self._stop.is_set():
            try:
                line = self._listener.recv(LINE_BYTES_MAX + 1, socket.MSG_DONTWAIT if pods else 0)
            except (BlockingIOError, TimeoutError):
                break
            pod = pod_of(line)
            self.counts["taken" if pod else "malformed"] += 1
            if pod is not None:
                pods.add(pod)
        return pods
