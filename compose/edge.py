"""Looks after nginx's edge: cuts the sockets of what was revoked, and sweeps the marks of used links.

    python -m compose.edge --revoked FILE --sockets LOG --used DIRECTORY

nginx checks a socket when it opens; this ends those that are open already. Each pass looks at the whole file
of revocations and at all open sockets: whatever was missed, by us or by a crash, is found again. Needs `ss`
of iproute2, and the right to end connections (CAP_NET_ADMIN).
"""

import argparse
import ipaddress
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from compose.open_sockets import OpenSocket, OpenSockets
from compose.supervisor import LOGS_KEPT
from state.revoked import Revoked

LOOK_EVERY_S = 1.0
SWEEP_EVERY_S = 60.0
CUT_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Tail:
    """Reads a log as it grows. The supervisor empties it in place when it is large, and keeps a copy."""

    path: Path
    _at: int | None = field(default=None, init=False)
    _rest: str = field(default="", init=False)

    def new(self) -> Iterator[str]:
        """The lines since the last time; the first time all there are, the older files' too."""
        for path, start in self._pieces():
            with suppress(FileNotFoundError), path.open(errors="replace") as log:
                log.seek(start)
                yield from self._lines(log.read())
                if path == self.path:
                    self._at = log.tell()

    def _pieces(self) -> list[tuple[Path, int]]:
        if self._at is None:
            older = [self.path.with_suffix(f".log.{number}") for number in range(LOGS_KEPT, 0, -1)]
            return [(path, 0) for path in (*older, self.path)]
        emptied = self.path.exists() and self.path.stat().st_size < self._at
        return (
            [(self.path.with_suffix(".log.1"), self._at), (self.path, 0)]
            if emptied
            else [(self.path, self._at)]
        )

    def _lines(self, text: str) -> Iterator[str]:
        *whole, self._rest = (self._rest + text).split("\n")
        yield from whole


def cut(found: OpenSocket) -> None:
    """End this very connection, from nginx's side. Nothing happens if it has ended. Raises `OSError`."""
    own, peer = (_address(end) for end in (found.own, found.peer))
    done = subprocess.run(
        [
            "ss",
            "--kill",
            "--no-header",
            "--tcp",
            "--numeric",
            "state",
            "connected",
            f"src = {own} and dst = {peer}",
        ],
        capture_output=True,
        text=True,
        timeout=CUT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(f"ss could not end {own} - {peer}: {done.stderr.strip()}")


def _address(end: tuple[str, int]) -> str:
    host = ipaddress.ip_address(end[0])
    return f"[{host}]:{end[1]}" if host.version == 6 else f"{host}:{end[1]}"


def sweep(used: Path, now_s: float) -> None:
    """Remove the marks of links that have expired by themselves."""
    for mark in used.iterdir():
        with suppress(OSError):
            text = mark.read_text()
            # Empty: nginx is writing it, or was killed while it did.
            expires_at = int(text) if text.isdecimal() else mark.stat().st_mtime + SWEEP_EVERY_S
            if expires_at < now_s:
                mark.unlink()


class Edge:
    """One pass after the other."""

    def __init__(self, revoked: Path, sockets: Path, used: Path) -> None:
        self._revoked = revoked
        self._used = used
        self._tail = Tail(sockets)
        self._open = OpenSockets()
        self._swept_at = 0.0

    def look(self) -> int:
        """Cut what must not be open; how many that were. Raises `OSError`, `ValueError`."""
        self._open.read(self._tail.new())
        found = self._open.stopped_by(Revoked.read(self._revoked.read_text()))
        for one in found:
            cut(one)
        if time.monotonic() - self._swept_at >= SWEEP_EVERY_S:
            sweep(self._used, time.time())
            self._swept_at = time.monotonic()
        return len(found)


def main() -> None:
    """Until a signal. What goes wrong is told, and tried again."""
    parser = argparse.ArgumentParser(prog="python -m compose.edge")
    for name in ("--revoked", "--sockets", "--used"):
        parser.add_argument(name, type=Path, required=True)
    edge = Edge(**vars(parser.parse_args()))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(LOOK_EVERY_S):
        try:
            count = edge.look()
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            print(f"edge: {error}", file=sys.stderr, flush=True)
            continue
        if count:
            print(f"edge: cut {count} sockets of what was revoked", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
