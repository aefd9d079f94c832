"""Two real S3 servers on loopback, as child processes: moto's, and rclone's in front of a directory."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.patience import PATIENCE_S
from tests.support.ports import free_port

ACCESS_KEY = "AKID3"
SECRET_KEY = "SECRET3"
BUCKET = "pods"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

_BIN = Path(sys.executable).parent


@contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """Its endpoint URL. Honours conditional puts, checks no credentials. The bucket must be made."""
    port = free_port()
    with _serving([str(_BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], port, log) as endpoint:
        yield endpoint


@contextmanager
def rclone_server(
    root: Path, log: Path, *, port: int | None = None, secret_key: str = SECRET_KEY
) -> Iterator[str]:
    """Its endpoint URL. Checks credentials, ignores conditions. Folders of the root are the buckets."""
    (root / BUCKET).mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    keys = f"{ACCESS_KEY},{secret_key}"
    argv = [str(_BIN / "rclone"), "serve", "s3", "--config=/dev/null", "--addr", f"127.0.0.1:{port}"]
    with _serving([*argv, "--auth-key", keys, str(root)], port, log) as endpoint:
        yield endpoint


@contextmanager
def _serving(argv: list[str], port: int, log: Path) -> Iterator[str]:
    with log.open("wb") as out:
        server = subprocess.Popen(argv, stdout=out, stderr=out, env={**os.environ, **CREDENTIALS})
    try:
        _wait_for(port, server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")
