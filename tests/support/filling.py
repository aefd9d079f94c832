"""Disks that are full for a while."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def full(disk: Path, left_bytes: int = 0) -> Iterator[None]:
    """At most so many bytes can be written to the file system at `disk` while the block runs."""
    filler = disk / "filler"
    filler.write_bytes(b"")
    free = os.statvfs(disk)
    size_bytes = free.f_bavail * free.f_frsize - left_bytes
    if size_bytes > 0:
        _quietly("fallocate", "-l", str(size_bytes), str(filler))
    if not left_bytes:
        _quietly("sh", "-c", 'cat /dev/zero >>"$0"', str(filler))
    try:
        yield
    finally:
        filler.unlink()


def _quietly(*argv: str) -> None:
    """It is meant to fail: for want of room."""
    subprocess.run(argv, check=False, capture_output=True, timeout=300)
