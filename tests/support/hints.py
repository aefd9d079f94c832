"""A listener for what nginx tells of sockets: each line as it came."""

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

WAIT_S_MAX = 60.0
DATAGRAM_BYTES_MAX = 4096
_FRAME = re.compile(r"<190>[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d codepods: ")


@dataclass
class Hints:
    """What has come so far, oldest first."""

    listener: socket.socket
    came: list[dict[str, Any]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where nginx sends to."""
        return "{}:{}".format(*self.listener.getsockname())

    def wait(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first line that is wanted, among those that came and those to come."""
        for line in self.came:
            if wanted(line):
                return line
        while True:
            line = self._next()
            if wanted(line):
                return line

    def of(self, session: str, event: str) -> dict[str, Any]:
        """The first such line about this session."""
        return self.wait(lambda line: (line["session"], line["event"]) == (session, event))

    def forget(self) -> None:
        """Make room for what is to come: the kernel drops what nobody reads."""
        self.came.clear()
        self.listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.listener.recv(DATAGRAM_BYTES_MAX)
        self.listener.settimeout(WAIT_S_MAX)

    def _next(self) -> dict[str, Any]:
        text = self.listener.recv(DATAGRAM_BYTES_MAX).decode()
        frame = _FRAME.match(text)
        assert frame, text
        line: dict[str, Any] = json.loads(text[frame.end() :])
        self.came.append(line)
        return line


@contextlib.contextmanager
def hint_listener() -> Iterator[Hints]:
    """On a free loopback port, until the end of the block."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(WAIT_S_MAX)
        yield Hints(listener)
