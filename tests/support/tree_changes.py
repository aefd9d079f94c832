"""Hypothesis strategies for what users do to trees between two archives, and the hand that does it."""

# Names here are bytes, as the kernel has them; a Path would tidy some of them.
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH114, PTH118, PTH123, PTH211

import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from tests.support.random_trees import OWNERS, names

KINDS = (
    "write",
    "edit unseen",
    "new file",
    "new folder",
    "remove",
    "rename",
    "mode",
    "owner",
    "time",
    "attribute",
    "link",
    "symlink",
    "whiteout",
    "file to folder",
    "folder to file",
)


@dataclass(frozen=True)
class Change:
    """One thing that is done: to which entry, in which folder, under which name."""

    kind: str
    which: int
    where: int
    name: bytes
    content: bytes
    number: int


def changes() -> st.SearchStrategy[list[Change]]:
    """What happens between two archives."""
    one = st.builds(
        Change,
        kind=st.sampled_from(KINDS),
        which=st.integers(0, 30),
        where=st.integers(0, 30),
        name=names(),
        content=st.binary(min_size=1, max_size=200),
        number=st.integers(0, 0o7777),
    )
    return st.lists(one, max_size=6)


def apply(changes: list[Change], root: Path) -> None:
    """Do it, as root; what cannot be done to the tree as it is then is left undone."""
    for change in changes:
        with suppress(FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            _apply(change, os.fsencode(root))


def _apply(change: Change, root: bytes) -> None:
    entries, folders, files = _entries(root)
    folder = folders[change.where % len(folders)]
    place = os.path.join(folder, change.name)
    entry = entries[change.which % len(entries)] if entries else None
    file = files[change.which % len(files)] if files else None
    match change.kind:
        case "new file":
            _write(place, change.content)
        case "new folder":
            os.mkdir(place)
        case "symlink":
            os.symlink(change.content.replace(b"\0", b"."), place)
        case "whiteout":
            os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))
        case "time":
            os.utime(folder, ns=(change.number, change.number))
        case "folder to file" if folder != root:
            shutil.rmtree(folder)
            _write(folder, change.content)
        case "write" | "edit unseen" | "link" | "file to folder" if file:
            _apply_to_file(change, file, place)
        case _ if entry:
            _apply_to(change, entry, place)


def _apply_to_file(change: Change, file: bytes, place: bytes) -> None:
    match change.kind:
        case "write":
            _write(file, change.content)
        case "edit unseen":
            _edit_unseen(file)
        case "link":
            os.link(file, place, follow_symlinks=False)
        case "file to folder":
            os.unlink(file)
            os.mkdir(file)
            _write(os.path.join(file, change.name), change.content)


def _apply_to(change: Change, entry: bytes, place: bytes) -> None:
    match change.kind:
        case "remove":
            _remove(entry)
        case "rename":
            if not place.startswith(entry + b"/") and not os.path.lexists(place):
                os.rename(entry, place)
        case "owner":
            os.chown(entry, OWNERS[change.number % len(OWNERS)], 7, follow_symlinks=False)
        case "mode" if not os.path.islink(entry):
            os.chmod(entry, change.number)
        case "attribute":
            os.setxattr(entry, "trusted.changed", change.content, follow_symlinks=False)


def _entries(root: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """All entries below the root; all folders, the root with them; all files. Sorted."""
    entries, folders, files = [], [root], []
    for folder, subfolders, others in os.walk(root):
        for name in subfolders + others:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            entries.append(path)
            if stat.S_ISDIR(mode):
                folders.append(path)
            elif stat.S_ISREG(mode):
                files.append(path)
    return sorted(entries), sorted(folders), sorted(files)


def _write(path: bytes, content: bytes) -> None:
    """Files only: a link leads elsewhere, a FIFO waits for a reader, sockets and whiteouts do not open."""
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        return
    with open(path, "wb") as file:
        file.write(content)


def _edit_unseen(path: bytes) -> None:
    """Another first byte; size and modification time as before."""
    before = os.lstat(path)
    with open(path, "r+b") as file:
        first = file.read(1) or b"\0"
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _remove(path: bytes) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)
