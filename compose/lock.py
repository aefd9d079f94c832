"""Whether this home has a supervisor: it holds a lock (flock) for as long as it lives, however it ends."""

import fcntl
import os

from compose.layout import Layout

SUPERVISOR = "supervisor"
EXIT_RUNS_ALREADY = 3


def take_lock(layout: Layout) -> int | None:
    """The descriptor that holds this home's lock until the process ends, or None: another one has it."""
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_running(layout: Layout) -> bool:
    """Whether a supervisor has this home: it holds the lock for as long as it lives."""
    if not layout.run.is_dir():
        return False
    lock = take_lock(layout)
    if lock is None:
        return True
    os.close(lock)
    return False
