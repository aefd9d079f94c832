"""The ports of a local installation: which, by which setting, and who holds one that is taken."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from compose.problems import ProblemError

PORT_MAX = 65_535
NAME_LENGTH_MAX = 40
_LISTEN_STATE = "0A"
_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per server: TCP, but for the hints. Each is moved by `CODEPODS_<NAME>_PORT`."""

    https: int = 8443
    http: int = 8080
    api: int = 8471
    gateway: int = 8472
    postgres: int = 8473
    # UDP: where nginx tells of sockets that open and end.
    hints: int = 8474

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Ports":
        """The defaults, with what the environment says. Raises `ProblemError` for what is no port."""
        chosen = {f.name: _port(setting_of(f.name), environ) for f in fields(cls)}
        ports = cls(**{name: port for name, port in chosen.items() if port is not None})
        _refuse_repeats(ports)
        return ports

    def items(self) -> tuple[tuple[str, int], ...]:
        """Name and port of each server."""
        return tuple((f.name, getattr(self, f.name)) for f in fields(self))


def setting_of(name: str) -> str:
    """The setting that moves the port of this server."""
    return f"CODEPODS_{name.upper()}_PORT"


def _port(setting: str, environ: Mapping[str, str]) -> int | None:
    text = environ.get(setting)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= PORT_MAX:
        raise ProblemError(f"{setting}={text!r} is not a port: give a number from 1 to {PORT_MAX}.")
    return int(text)


def _refuse_repeats(ports: Ports) -> None:
    seen: dict[int, str] = {}
    for name, port in ports.items():
        if port in seen:
            both = f"{setting_of(seen[port])} and {setting_of(name)}"
            raise ProblemError(f"Port {port} is asked for twice: {both} must differ.")
        seen[port] = name


# What browsers reach; everything else is on the loopback only.
FRONT = ("https", "http")


def is_free(address: str, port: int) -> bool:
    """Whether a server could bind this now, the way servers do (time-wait does not count)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def require_free(ports: Ports, front_address: str, *, besides: tuple[str, ...] = ()) -> None:
    """Raise `ProblemError`, one line for each port that is taken, saying by whom and how to move ours."""
    taken = [
        f"Port {port} is taken{_by_whom(port)}. Stop that, or move ours: {setting_of(name)}=<another port>"
        for name, port in ports.items()
        if name not in besides and not is_free(front_address if name in FRONT else "127.0.0.1", port)
    ]
    if taken:
        raise ProblemError("\n".join(taken))


def _by_whom(port: int) -> str:
    holder = holder_of(port)
    return f" by {holder[1]} (pid {holder[0]})" if holder else ""


def holder_of(port: int) -> tuple[int, str] | None:
    """Pid and name of a process that listens on this port, where we may look into it."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and inodes & _socket_inodes(process):
            return int(process.name), _name_of(process)
    return None


def _listening_inodes(port: int) -> set[str]:
    wanted = f":{port:04X}"
    rows = [row.split() for table in ("tcp", "tcp6") for row in _lines(Path("/proc/net") / table)[1:]]
    return {row[9] for row in rows if row[1].endswith(wanted) and row[3] == _LISTEN_STATE}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _socket_inodes(process: Path) -> set[str]:
    """The inodes of a process's sockets; none where it is gone or not ours to see."""
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return set()
    return {match[1] for link in map(_target, descriptors) if (match := _SOCKET_LINK.fullmatch(link))}


def _target(link: Path) -> str:
    """Descriptors come and go while they are read."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _name_of(process: Path) -> str:
    """Its command, short: `python -m api.main` says more than `python`."""
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    program = Path(words[0].partition(" ")[0]).name.rstrip(":")
    return " ".join([program, *words[1:]]).strip()[:NAME_LENGTH_MAX]
