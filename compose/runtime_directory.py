"""Where the front door keeps what must not outlive the machine's uptime, or reach a disk: in memory."""

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
from pathlib import Path

from compose.problems import ProblemError

# Only root may make something in the first. The second where that is no tmpfs (containers), or for others.
CANDIDATES = (Path("/run"), Path("/dev/shm"))  # noqa: S108  the directory in it is ours alone: see `claim`
_MOUNTS = Path("/proc/mounts")


def runtime_directory(home: Path, candidates: tuple[Path, ...] = CANDIDATES) -> Path:
    """The directory of the installation in `home`: one name for each home. Raises `ProblemError`."""
    for candidate in candidates:
        if _is_in_memory(candidate) and os.access(candidate, os.W_OK):
            return candidate / _name(home)
    raise ProblemError(
        f"None of {', '.join(map(str, candidates))} is a tmpfs that can be written: the front door keeps the "
        "secrets of open sessions there, off the disk. Mount one: mount -t tmpfs tmpfs /dev/shm"
    )


def _name(home: Path) -> str:
    return f"codepods-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}"


def discard(home: Path, candidates: tuple[Path, ...] = CANDIDATES) -> None:
    """Remove it, once nothing runs."""
    for candidate in candidates:
        if (candidate / _name(home)).exists():
            shutil.rmtree(candidate / _name(home))


def _is_in_memory(directory: Path) -> bool:
    mounts = [line.split()[:3] for line in _MOUNTS.read_text().splitlines()]
    return any(kind == "tmpfs" and point == str(directory) for _, point, kind in mounts)


def claim(directory: Path, worker_user: str | None) -> None:
    """Make it, for us and the workers alone. Raises `ProblemError` when somebody else was there first."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ProblemError(f"{directory} is not ours. Look at what it is, and remove it.")
    if worker_user is not None:
        os.chown(directory, -1, pwd.getpwnam(worker_user).pw_gid)
    directory.chmod(0o700 if worker_user is None else 0o750)
