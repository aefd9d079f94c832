"""Ports for what a test starts itself, or of which it says that nobody listens there."""

import itertools
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

# Above what the product and other programs take by default.
_FIRST = 21_000
# The kernel gives ports from here on to whoever asks for any, and Docker to containers: one that was free a
# moment ago may be a pod's by now. Where they are given from lower down, that chance is taken.
_GIVEN_AWAY_FROM = max(32_768, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
# Processes of tests that run side by side, each with ports of its own.
_SHARES = 8


def _own() -> Iterator[int]:
    """This process's share, round and round, from anywhere: another suite may run on the machine, too."""
    share = (_GIVEN_AWAY_FROM - _FIRST) // _SHARES
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    ports = range(_FIRST + number * share, _FIRST + (number + 1) * share)
    begin = random.SystemRandom().randrange(len(ports))
    return itertools.cycle([*ports[begin:], *ports[:begin]])


_ports = _own()


def free_port() -> int:
    """A port that nobody listens on, and that nobody is given who asks for any."""
    return next(port for port in _ports if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
