"""A network namespace for a browser, in which no interface comes or goes.

Chromium gives up what it loads when an interface of its machine changes, as those of other pods do here and
not where learners are. In here it sees one that never changes, and the ports it is given, on loopback.
"""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CHROMIUM = "/usr/bin/chromium"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


@contextmanager
def quiet_chromium(*ports: int) -> Iterator[str]:
    """The path of a Chromium that lives in there; it reaches these ports of 127.0.0.1."""
    name = f"codepods-browser-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="codepods-browser-") as directory, ExitStack() as stack:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "delete", name)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "add", "quiet0", "type", "veth", "peer", "name", "quiet1")
        _ip("-n", name, "addr", "add", "192.0.2.1/24", "dev", "quiet0")
        _ip("-n", name, "link", "set", "quiet0", "up")
        _ip("-n", name, "link", "set", "quiet1", "up")
        for port in ports:
            path = f"unix:{directory}/{port}"
            stack.enter_context(_relay(path, f"tcp:127.0.0.1:{port}"))
            stack.enter_context(_relay(f"tcp:127.0.0.1:{port}", path, "ip", "netns", "exec", name))
        launcher = Path(directory) / "chromium"
        launcher.write_text(f'#!/bin/sh\nexec ip netns exec {name} {CHROMIUM} "$@"\n')
        launcher.chmod(0o755)
        yield str(launcher)


@contextmanager
def _relay(listen: str, connect: str, *prefix: str) -> Iterator[None]:
    argv = [*prefix, sys.executable, "-m", "tests.support.relay", listen, connect]
    process = subprocess.Popen(argv, cwd=CHECKOUT, env=dict(os.environ), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
