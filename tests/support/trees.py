"""Whole trees as values: to compare two of them in every respect that a pod can notice."""

# Names here are bytes, as the kernel has them; a Path would tidy some of them.
# ruff: noqa: PTH115, PTH118, PTH123

import hashlib
import os
import stat
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from node_agent.archive.records import RACY_NS

# Bookkeeping of one node's overlay mount: an archive leaves it out.
NODE_LOCAL_XATTRS = frozenset(
    {"trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.uuid", "security.selinux"}
)


@dataclass(frozen=True)
class Entry:
    """One name in a tree. `links` are all names of the same file or symbolic link, if more than one."""

    type: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: tuple[tuple[str, bytes], ...]
    size_bytes: int = 0
    sha256: str = ""
    sparse: bool = False
    target: bytes = b""
    rdev: int = 0
    links: tuple[bytes, ...] = ()


Snapshot = dict[bytes, Entry]


def settle() -> None:
    """Until what was just written is old enough for the next look at it to be trusted."""
    time.sleep(2 * RACY_NS / 1e9)


def snapshot(root: Path) -> Snapshot:
    """Every entry below the root and the root itself (as `.`), sockets left out."""
    base = os.fsencode(root)
    seen = {path: os.lstat(os.path.join(base, path)) for path in _paths(base)}
    groups = _link_groups(seen)
    return {
        path: _entry(os.path.join(base, path), found, groups.get((found.st_dev, found.st_ino), ()))
        for path, found in seen.items()
        if not stat.S_ISSOCK(found.st_mode)
    }


def differences(expected: Snapshot, found: Snapshot) -> list[str]:
    """One line for each name and respect in which the trees differ; empty when they are the same."""
    lines = [f"{path!r} is missing" for path in sorted(expected.keys() - found.keys())]
    lines += [f"{path!r} is too many" for path in sorted(found.keys() - expected.keys())]
    for path in sorted(expected.keys() & found.keys()):
        for field in fields(Entry):
            before, after = (getattr(tree[path], field.name) for tree in (expected, found))
            if before != after:
                lines.append(f"{path!r}: {field.name} was {before!r}, is {after!r}")
    return lines


def _paths(base: bytes) -> Iterator[bytes]:
    yield b"."
    for folder, subfolders, files in os.walk(base, followlinks=False):
        below = os.path.relpath(folder, base)
        for name in subfolders + files:
            yield os.path.normpath(os.path.join(below, name))


def _link_groups(seen: dict[bytes, os.stat_result]) -> dict[tuple[int, int], tuple[bytes, ...]]:
    """Names by inode, for files and symbolic links of several names. tar splits linked FIFOs and devices."""
    groups = defaultdict(list)
    for path, found in seen.items():
        if found.st_nlink > 1 and (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            groups[found.st_dev, found.st_ino].append(path)
    return {inode: tuple(sorted(paths)) for inode, paths in groups.items()}


def _entry(path: bytes, found: os.stat_result, links: tuple[bytes, ...]) -> Entry:
    is_file = stat.S_ISREG(found.st_mode)
    return Entry(
        type=stat.filemode(found.st_mode)[0],
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=found.st_mtime_ns,
        xattrs=_xattrs(path),
        size_bytes=found.st_size if is_file else 0,
        sha256=_sha256(path) if is_file else "",
        sparse=is_file and found.st_blocks * 512 < found.st_size,
        target=os.readlink(path) if stat.S_ISLNK(found.st_mode) else b"",
        rdev=found.st_rdev,
        links=links,
    )


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(set(os.listxattr(path, follow_symlinks=False)) - NODE_LOCAL_XATTRS)
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def _sha256(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
