"""A network of the learners' own: Chromium in a namespace, behind a cable that can be cut.

What comes and goes on this machine's other interfaces (pods' ones, mostly) is not seen there: Chromium would
give up requests under way when it sees that.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class LearnersNetwork:
    """`here` is this machine's address on the cable. `browser` starts Chromium at the other end."""

    name: str
    here: str
    browser: Path

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Every packet is dropped, both ways, and nobody is told; as when a laptop leaves its network."""
        rules = [("OUTPUT", "-o", "learner"), ("INPUT", "-i", "learner")]
        for rule in rules:
            self._inside("iptables", "-A", *rule, "-j", "DROP")
        try:
            yield
        finally:
            for rule in rules:
                self._inside("iptables", "-D", *rule, "-j", "DROP")

    def _inside(self, *command: str) -> None:
        _run("ip", "netns", "exec", self.name, *command)


@contextmanager
def learners_network(directory: Path, chromium: str) -> Iterator[LearnersNetwork]:
    """The namespace, its cable to this machine, and a program that runs `chromium` in it. Needs root."""
    name = f"cpl{os.getpid() % 100_000}{next(_numbers)}"
    block = f"198.18.{os.getpid() % 250}.{4 * (next(_numbers) % 60)}".rpartition(".")
    first = int(block[2])
    here, there = f"{block[0]}.{first + 1}", f"{block[0]}.{first + 2}"
    browser = directory / "chromium"
    browser.write_text(f'#!/bin/sh\nexec ip netns exec {name} {chromium} "$@"\n')
    browser.chmod(0o755)
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "learner", "netns", name)
        _run("ip", "address", "add", f"{here}/30", "dev", name)
        _run("ip", "link", "set", name, "up")
        network = LearnersNetwork(name, here, browser)
        network._inside("ip", "address", "add", f"{there}/30", "dev", "learner")
        network._inside("ip", "link", "set", "learner", "up")
        network._inside("ip", "link", "set", "lo", "up")
        yield network
    finally:
        _run("ip", "netns", "delete", name)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
