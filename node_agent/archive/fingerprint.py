"""One walk over a tree: has it changed, how large is it, and what in it cannot be kept.

The fingerprint tells whether anything changed since an archive was made of this very tree, on this node:
it holds inode numbers and ctimes, so a restored copy has another one.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, Protocol

from node_agent.archive.errors import CaptureFailed, SourceChanged
from node_agent.archive.inode_flags import FlagReader

NAMES_KEPT_MAX = 50
PATH_BYTES_MAX = 4090  # the kernel takes 4095 bytes at a time, and tar puts "./" in front
WHITEOUT_DEVICE = 0
_NAME = itemgetter(0)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class TreeScan:
    """What one walk saw. `entries` counts what an archive keeps, the root with it; `data_bytes` is the
    allocated size of files; the names are the first few, printable, of what an archive does not keep."""

    fingerprint: str
    entries: int
    data_bytes: int
    sockets: tuple[str, ...]
    socket_count: int
    split_links: tuple[str, ...]
    split_link_count: int
    held_fast: tuple[str, ...] = ()
    held_fast_count: int = 0


class Recorder(Protocol):
    """Takes down each entry of a scan."""

    def __call__(self, path: bytes, seen: os.stat_result, identity: bytes) -> None:
        """`identity` changes whenever anything of the entry does, on this node."""


class _Seen(NamedTuple):
    path: bytes
    stat: os.stat_result
    held_fast: bool


class _Tally:
    def __init__(self) -> None:
        self.entries = 0
        self.data_bytes = 0
        self.sockets: list[str] = []
        self.socket_count = 0
        self.split_links: list[str] = []
        self.split_link_count = 0
        self.held_fast: list[str] = []
        self.held_fast_count = 0

    def count(self, entry: _Seen) -> None:
        seen = entry.stat
        if stat.S_ISSOCK(seen.st_mode):
            self.socket_count += 1
            _keep_name(self.sockets, entry.path)
            return
        self.entries += 1
        if entry.held_fast:
            self.held_fast_count += 1
            _keep_name(self.held_fast, entry.path)
        if stat.S_ISREG(seen.st_mode):
            self.data_bytes += min(seen.st_size, seen.st_blocks * 512)
        elif _is_linked_special(seen):
            self.split_link_count += 1
            _keep_name(self.split_links, entry.path)


def scan_tree(root: Path, record: Recorder | None = None) -> TreeScan:
    """Walk the tree once, without following links. Raises CaptureFailed where it cannot be read.

    `record` is given what an archive keeps, in the order of `_walk`.
    """
    running = hashlib.sha256()
    tally = _Tally()
    with _read_errors():
        for entries in _walk(os.fsencode(root), FlagReader()):
            for entry in entries:
                identity = _stat_bytes(entry.stat)
                running.update(b"%d:%s%s" % (len(entry.path), entry.path, identity))
                tally.count(entry)
                if record and not stat.S_ISSOCK(entry.stat.st_mode):
                    record(entry.path, entry.stat, identity)
    return TreeScan(
        fingerprint=running.hexdigest(),
        entries=tally.entries,
        data_bytes=tally.data_bytes,
        sockets=tuple(tally.sockets),
        socket_count=tally.socket_count,
        split_links=tuple(tally.split_links),
        split_link_count=tally.split_link_count,
        held_fast=tuple(tally.held_fast),
        held_fast_count=tally.held_fast_count,
    )


def record_tree(root: Path, record: Recorder) -> None:
    """What `scan_tree` records of a tree, and nothing else of it, for half the work."""
    with _read_errors():
        for entries in _walk(os.fsencode(root), None):
            for path, seen, _ in entries:
                if not stat.S_ISSOCK(seen.st_mode):
                    record(path, seen, _stat_bytes(seen))


def tree_fingerprint(root: Path) -> str:
    """Hex SHA-256 over path, type, mode, owner, size, times and inode of every entry, in a fixed order.

    The same as a whole scan gives, for half the work.
    """
    running = hashlib.sha256()
    with _read_errors():
        for entries in _walk(os.fsencode(root), None):
            running.update(
                b"".join([b"%d:%s%s" % (len(path), path, _stat_bytes(seen)) for path, seen, _ in entries])
            )
    return running.hexdigest()


def printable(path: bytes) -> str:
    """A name for people and for JSON: what is not printable is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@contextmanager
def _read_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SourceChanged(f"{error.filename!r} went away while the tree was scanned") from error
    except OSError as error:
        raise CaptureFailed(f"cannot read the tree to archive: {error}") from error


def _walk(root: bytes, flags: FlagReader | None) -> Iterator[list[_Seen]]:
    """Folder by folder, paths relative to the root, depth first, siblings by name; an own stack, for trees
    can be deep. Nothing is held fast where nobody asks.

    Folders are opened relative to the root, so that the tree may use the whole length of a path for itself.
    """
    root_fd = os.open(root, _FOLDER)
    try:
        yield [_Seen(b".", os.fstat(root_fd), flags is not None and flags.is_held_fast(root_fd, b"."))]
        waiting = [b""]
        while waiting:
            entries = _read_folder(root_fd, waiting.pop(), flags)
            yield entries
            waiting.extend(
                entry.path + b"/" for entry in reversed(entries) if stat.S_ISDIR(entry.stat.st_mode)
            )
    finally:
        os.close(root_fd)


def _read_folder(root_fd: int, folder: bytes, flags: FlagReader | None) -> list[_Seen]:
    folder_fd = os.open(folder or b".", _FOLDER, dir_fd=root_fd)
    try:
        with os.scandir(folder_fd) as found:
            # A file descriptor gives names as str, by the file system's encoding, which loses nothing.
            entries = sorted([(os.fsencode(entry.name), entry) for entry in found], key=_NAME)
            _refuse_long_paths(folder, entries)
            is_held_fast = flags.is_held_fast if flags else _nobody_asks
            return [
                _Seen(folder + name, entry.stat(follow_symlinks=False), is_held_fast(folder_fd, name))
                for name, entry in entries
            ]
    finally:
        os.close(folder_fd)


def _nobody_asks(_folder_fd: int, _name: bytes) -> bool:
    return False


def _refuse_long_paths(folder: bytes, entries: list[tuple[bytes, os.DirEntry[str]]]) -> None:
    longest = max((len(name) for name, _ in entries), default=0)
    if len(folder) + longest > PATH_BYTES_MAX:
        raise CaptureFailed(
            f"the tree has a path longer than {PATH_BYTES_MAX} bytes, which could not be restored, below "
            f"{printable(folder[:60])}… Shorten or remove it in the running pod, then archive again."
        )


def _stat_bytes(seen: os.stat_result) -> bytes:
    # As text: times before 1970 and after 2262 do not fit the machine's integers.
    return b" %o %d %d %d %d %d %d %d\n" % (
        seen.st_mode,
        seen.st_uid,
        seen.st_gid,
        seen.st_rdev,
        seen.st_size,
        seen.st_mtime_ns,
        seen.st_ctime_ns,
        seen.st_ino,
    )


def _is_linked_special(seen: os.stat_result) -> bool:
    """Whether a FIFO or device has several names. Overlay whiteouts share one inode."""
    if seen.st_nlink < 2 or stat.S_ISDIR(seen.st_mode) or stat.S_ISLNK(seen.st_mode):
        return False
    return not (stat.S_ISCHR(seen.st_mode) and seen.st_rdev == WHITEOUT_DEVICE)


def _keep_name(names: list[str], path: bytes) -> None:
    if len(names) < NAMES_KEPT_MAX:
        names.append(printable(path))
