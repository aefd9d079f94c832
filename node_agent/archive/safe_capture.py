"""The safe way out of a container: its changes, read through the engine, laid out as an overlay has them.

What the engine lists and shows is turned into one tar, with the kernel's own mark for what was deleted, and
unpacked (confined, as everything of strangers is) into a scratch folder, which is then archived like any
other. What is lost on the way is in `LOSSES`.
"""

import os
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from node_agent.archive.confinement import TREE, confined_argv
from node_agent.archive.errors import CaptureFailed
from node_agent.archive.fingerprint import printable
from node_agent.archive.member_tar import END, Gathered, content, members, open_tar, raw, write_member
from node_agent.archive.tar_process import TarProcess, extract_argv
from node_agent.errors import NotFound
from node_agent.runtime import ChangeKind, EngineFiles, PathChange, PathType

HOLE_SOUGHT_IN_BYTES_MIN = 1 << 20
NAMES_TOLD_MAX = 10
# What the engine's JSON has where a name's bytes are no UTF-8.
UNREADABLE = "\ufffd"
_UNSEEN_CONTENT = (
    "saved through the engine's API, which does not show: extended attributes and ACLs (file capabilities "
    "are kept), fractions of seconds in times, times before 1970, and that files in different changed "
    "folders, or a file of the image and a new one, are one by a hard link; sockets are left out"
)
_UNSEEN_CHANGES = (
    "saved through the engine's API, which does not tell of what the image has and where nothing but "
    "attributes, an ACL, a link count or a folder's time was changed"
)
LOSSES = (_UNSEEN_CONTENT, _UNSEEN_CHANGES)


def lay_out_changes(engine: EngineFiles, container_id: str, scratch: Path) -> tuple[str, ...]:
    """Fill an empty folder with a stopped container's changes. Notices of what could not be kept.

    Raises StepError where the engine does, CaptureFailed where it shows something else than it listed.
    """
    changes = engine.changed_paths(container_id)
    reading = _Reading(engine, container_id, engine.mounts_of(container_id))
    with TarProcess(confined_argv(scratch.absolute(), extract_argv(TREE)), extracts=True) as tar:
        gathered = Gathered(tar.feed)
        for piece in reading.tar_of(changes):
            if not gathered.write(piece):
                break
        gathered.flush()
        code, messages = tar.finish()
    if code != 0 or messages:
        said = "; ".join(messages) or "nothing"
        raise CaptureFailed(f"could not lay out the pod's changes (exit {code}), tar said: {said}")
    _dig_holes(scratch)
    return (*LOSSES, *reading.notices())


def plan_reads(changes: Iterable[PathChange], mounts: Iterable[str]) -> list[tuple[PathChange, bool]]:
    """What to ask for, parents first, and whether it is asked for whole or, of a folder, itself only. Pure.

    What is mounted is left out, and what comes anyway with an added folder above it.
    """
    mounted = tuple(mounts)
    above = {parent for mount in mounted for parent in _parents(mount)}
    reads: list[tuple[PathChange, bool]] = []
    whole = ""
    for change in sorted(changes, key=lambda change: change.path.split("/")):
        path = change.path
        if (whole and path.startswith(whole)) or _is_below(path, mounted):
            continue
        is_whole = change.kind is ChangeKind.ADDED and path not in above
        if is_whole:
            whole = f"{path}/"
        reads.append((change, is_whole))
    return reads


def as_json_shows(name: bytes) -> str:
    """A name as the engine's JSON has it: each byte that is no part of UTF-8 becomes U+FFFD."""
    text = name.decode("utf-8", "surrogateescape")
    return "".join(UNREADABLE if "\udc80" <= char <= "\udcff" else char for char in text)


class _Reading:
    """One pass over a container."""

    def __init__(self, engine: EngineFiles, container_id: str, mounts: tuple[str, ...]) -> None:
        self._engine = engine
        self._container_id = container_id
        self._mounts = mounts
        self._folders = {""}
        self._lost_deletions: list[str] = []
        self._sockets: list[str] = []

    def notices(self) -> tuple[str, ...]:
        """Beside `LOSSES`."""
        told = []
        if self._lost_deletions:
            names = _some(self._lost_deletions)
            told.append(f"deleted files of the image whose names are not UTF-8 come back: {names}")
        if self._sockets:
            names = _some(self._sockets)
            told.append(f"sockets are left out; their programs make them anew: {names}")
        return tuple(told)

    def tar_of(self, changes: Iterable[PathChange]) -> Iterator[bytes]:
        """One tar, names as in an upper directory."""
        yield from self._read("/", whole=False)
        reads = plan_reads(changes, self._mounts)
        unreadable = _unreadable_names(change for change, _ in reads)
        for change, whole in reads:
            if change.kind is ChangeKind.DELETED:
                yield from self._deletion(change.path)
            elif UNREADABLE not in change.path:
                yield from self._read(change.path, whole=whole)
            else:
                # All of a folder at once, and in its turn: tar has done with a folder when it has left it.
                parent = change.path.rpartition("/")[0]
                yield from self._read_some(parent, unreadable.pop(parent, set()))
        yield END

    def _deletion(self, path: str) -> Iterator[bytes]:
        if UNREADABLE in path:
            self._lost_deletions.append(path)
            return
        if path.rpartition("/")[0] not in self._folders:
            return  # its folder is something else now, which hides it
        whiteout = tarfile.TarInfo(_relative(path))
        whiteout.type, whiteout.mode = tarfile.CHRTYPE, 0
        yield from write_member(whiteout, iter(()))

    def _read(self, path: str, *, whole: bool) -> Iterator[bytes]:
        """A path and, of a folder that is asked for whole, all below it."""
        try:
            with self._engine.open_path(self._container_id, path) as opened:
                if opened.type is PathType.SOCKET:
                    self._sockets.append(printable(path.encode()))
                    return
                if opened.type is PathType.FOLDER:
                    self._folders.add(path.rstrip("/"))
                parent = path.rpartition("/")[0]
                only_itself = opened.type is PathType.FOLDER and not whole
                yield from self._members(opened.chunks, parent, 1 if only_itself else None)
        except NotFound as error:
            raise CaptureFailed(f"the engine lists {path[:200]!r} and does not find it") from error

    def _read_some(self, parent: str, names: set[str]) -> Iterator[bytes]:
        """The named entries of a folder, found among all of it: the engine cannot be asked for them."""
        if not names:
            return
        with self._engine.open_path(self._container_id, parent or "/") as opened:
            above = parent.rpartition("/")[0]
            yield from self._members(opened.chunks, above, None, below=(parent, names))

    def _members(
        self,
        chunks: Iterator[bytes],
        parent: str,
        count_max: int | None,
        below: tuple[str, set[str]] | None = None,
    ) -> Iterator[bytes]:
        try:
            with open_tar(chunks) as tar:
                for info in islice(members(tar), count_max):
                    _move(info, parent)
                    if below is None or _is_one_of(info, *below):
                        yield from write_member(info, content(tar, info))
        except tarfile.TarError as error:
            raise CaptureFailed(f"what the engine shows below {parent[:200]!r} is no tar: {error}") from error


def _unreadable_names(changes: Iterable[PathChange]) -> dict[str, set[str]]:
    """By folder, what the engine cannot be asked for by name."""
    found: dict[str, set[str]] = {}
    for change in changes:
        parent, _, name = change.path.rpartition("/")
        if UNREADABLE in name and change.kind is not ChangeKind.DELETED:
            found.setdefault(parent, set()).add(name)
    return found


def _move(info: tarfile.TarInfo, parent: str) -> None:
    """From the name by itself to the name in the whole tree. Links that are not hard lead where they led."""
    prefix = _relative(parent)
    name = info.name.strip("/")
    info.name = prefix if name in ("", ".") else f"{prefix}/{name}"
    if info.islnk():
        info.linkname = f"{prefix}/{info.linkname.strip('/')}"


def _relative(path: str) -> str:
    return f".{path.rstrip('/')}"


def _is_one_of(info: tarfile.TarInfo, parent: str, names: set[str]) -> bool:
    shown = as_json_shows(raw(info.name))
    inside = shown.removeprefix(f"{_relative(parent)}/")
    return inside != shown and inside.partition("/")[0] in names


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _is_below(path: str, mounts: tuple[str, ...]) -> bool:
    return any(path == mount or path.startswith(f"{mount}/") for mount in mounts)


def _some(names: list[str]) -> str:
    rest = len(names) - NAMES_TOLD_MAX
    return ", ".join(names[:NAMES_TOLD_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _dig_holes(tree: Path) -> None:
    """The engine writes holes out as zeros: make them holes again, and leave the times as they are."""
    for folder, _names, files in os.walk(os.fsencode(tree)):
        for name in files:
            path = folder + b"/" + name
            seen = os.lstat(path)
            if stat.S_ISREG(seen.st_mode) and seen.st_size >= HOLE_SOUGHT_IN_BYTES_MIN:
                subprocess.run(("fallocate", "--dig-holes", path), check=True, capture_output=True)
                os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
