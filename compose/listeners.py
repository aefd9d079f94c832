"""Opens nginx's listening sockets, then becomes nginx: for what nginx itself cannot ask of a socket.

    python -m compose.listeners --tcp ADDRESS:PORT … --unix PATH … -- NGINX ARGUMENT…

nginx takes over open sockets by the variable NGINX (as in its own change of binary), and keeps them through
reloads. What is set on a listening socket holds for each connection that it accepts.
"""

import argparse
import contextlib
import os
import socket
import sys
from pathlib import Path

# A client that does not acknowledge what was sent to it is given up after this: tcp(7), TCP_USER_TIMEOUT.
# TCP alone tries for 15 minutes (tcp_retries2), and keepalive does not probe while data waits for its answer.
# Where nothing is sent, so_keepalive (template) probes after 6, 9 and 12 s and gives up at 15 s. Something
# sent just before that begins anew: 29 s at most, of the 30 within which it has to be noticed.
UNACKNOWLEDGED_MS_MAX = 14_000
# nginx's own default; it sets it anew.
BACKLOG = 511


def listen_tcp(address: str) -> socket.socket:
    """A socket on `a.b.c.d:port`, `*:port` or `[ipv6]:port`. Raises OSError."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX)
    if family is socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("" if host == "*" else host.strip("[]"), int(port)))
    listener.listen(BACKLOG)
    return listener


def listen_unix(path: Path) -> socket.socket:
    """A socket at this path; what a killed nginx left there is replaced. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    # The directory is what keeps others out.
    path.chmod(0o666)
    listener.listen(BACKLOG)
    return listener


def main() -> None:
    """Does not return, unless a socket cannot be had: then exit code 1 and why."""
    parser = argparse.ArgumentParser(prog="python -m compose.listeners")
    parser.add_argument("--tcp", action="append", default=[])
    parser.add_argument("--unix", action="append", default=[], type=Path)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    try:
        listeners = [*map(listen_tcp, asked.tcp), *map(listen_unix, asked.unix)]
    except OSError as error:
        sys.exit(
            f"nginx's sockets ({', '.join([*asked.tcp, *map(str, asked.unix)])}) cannot be opened: {error}"
        )
    for listener in listeners:
        listener.set_inheritable(True)
        # nginx takes inherited sockets as they are. Its workers wake together for one connection, and on a
        # socket that blocks the later ones would sleep in accept for ever, with all that they serve.
        listener.setblocking(False)
    environment = {**os.environ, "NGINX": "".join(f"{listener.fileno()};" for listener in listeners)}
    os.execvpe(asked.command[0], asked.command, environment)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
