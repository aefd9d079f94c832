"""The safe way into a container: an unpacked archive, given to the engine as what to delete and what to add.

The engine's API adds and replaces files of a stopped container; it deletes none. So what the archive marks as
deleted is removed inside the new container, by a program of the image, while its gate is shut.
"""

import os
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from node_agent.archive.errors import CaptureFailed, RestoreFailed
from node_agent.archive.fingerprint import printable
from node_agent.archive.tar_process import TarProcess, create_argv

LOST_AT_RESTORE = (
    "what is restored here goes through the engine's API, which does not keep times before 1970, holes in "
    "files, and the root folder's own mode and owner"
)
_OPAQUE, _REDIRECT, _METACOPY = (f"trusted.overlay.{mark}" for mark in ("opaque", "redirect", "metacopy"))


@dataclass(frozen=True, slots=True)
class Removals:
    """Paths of the image, relative to its root, that are to go before anything is added."""

    paths: tuple[bytes, ...]

    def as_file(self) -> bytes:
        """For `xargs -0`. Programs and libraries last: removing needs them itself."""
        return b"".join(b"/%s\0" % path for path in sorted(self.paths, key=_needed_for_removing))


def take_removals(tree: Path, mounts: Iterable[str]) -> Removals:
    """Take an overlay's marks out of an unpacked tree, and what lies where something is mounted.

    What is left holds only files to add, times as they were. Raises RestoreFailed for marks that only the
    fast way can follow.
    """
    kept_out = frozenset(os.fsencode(mount).strip(b"/") for mount in mounts)
    found: list[bytes] = []
    for folder in _folders(os.fsencode(tree)):
        found += _take_from(os.fsencode(tree), folder, kept_out)
    above_mounts = {parent for mount in kept_out for parent in _self_and_parents(mount)}
    return Removals(tuple(path for path in found if path not in above_mounts))


def those_inside(removals: Removals, is_folder: Callable[[str], bool]) -> Removals:
    """Leave out what is not there to be removed: where the image has no folder above it, but a link that
    may lead elsewhere, or nothing."""
    known: dict[bytes, bool] = {b"": True}

    def is_real(path: bytes) -> bool:
        if path not in known:
            above = path.rpartition(b"/")[0]
            known[path] = is_real(above) and _asked(path, is_folder)
        return known[path]

    return Removals(tuple(path for path in removals.paths if is_real(path.rpartition(b"/")[0])))


def additions(tree: Path) -> Iterator[bytes]:
    """A tar of what `take_removals` left. Raises CaptureFailed, and then the tar must not be used."""
    argv = [*create_argv(tree)[:-1], "--xattrs-exclude=trusted.overlay.*", "."]
    with TarProcess(argv, extracts=False) as tar:
        yield from tar.read_chunks()
        code, messages = tar.finish()
    if code != 0:
        raise CaptureFailed(f"could not read the unpacked archive (exit {code}), tar said: {messages}")


def _asked(path: bytes, is_folder: Callable[[str], bool]) -> bool:
    try:
        return is_folder(f"/{path.decode()}")
    except UnicodeDecodeError:
        return False  # the engine cannot be asked for it


def _folders(root: bytes) -> Iterator[bytes]:
    """Relative paths, the root as empty, those below after those above."""
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        yield folder
        with os.scandir(os.path.join(root, folder)) as entries:  # noqa: PTH118 (bytes)
            waiting += [_join(folder, entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _take_from(root: bytes, folder: bytes, kept_out: frozenset[bytes]) -> list[bytes]:
    path = root + b"/" + folder
    seen = os.lstat(path)
    removed = [folder] if _is_opaque(path, folder) else []
    touched = False
    with os.scandir(path) as entries:
        for entry in list(entries):
            inside = _join(folder, entry.name)
            if inside in kept_out:
                subprocess.run(("rm", "-rf", "--", entry.path), check=True)
                touched = True
            elif _is_whiteout(entry.stat(follow_symlinks=False)):
                os.unlink(entry.path)  # noqa: PTH108 (bytes)
                removed.append(inside)
                touched = True
    if touched:
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    return removed


def _is_opaque(path: bytes, folder: bytes) -> bool:
    marks = os.listxattr(path, follow_symlinks=False)
    if _REDIRECT in marks or _METACOPY in marks:
        raise RestoreFailed(
            f"the archive has a mark in /{printable(folder)} that only an overlay file system can follow; "
            "restore it on a node that archives the fast way"
        )
    return _OPAQUE in marks and folder != b""


def _is_whiteout(seen: os.stat_result) -> bool:
    return stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _self_and_parents(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = path.rpartition(b"/")[0]


def _needed_for_removing(path: bytes) -> tuple[bool, bytes]:
    top = path.removeprefix(b"usr/").partition(b"/")[0]
    return top.startswith((b"bin", b"sbin", b"lib")), path
