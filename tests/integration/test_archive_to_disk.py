"""A restored tree is on the disk before it counts as whole; a large one is on its way there before."""

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.archive import write_behind
from node_agent.archive.commit import ArchiveResult, write_archive
from node_agent.archive.errors import RestoreDiskFull, RestoreFailed
from node_agent.archive.restore import restore_archive
from node_agent.directory_store import DirectoryStore
from tests.support.archive_requests import REQUEST as OF_A_WORKSPACE

REQUEST = replace(OF_A_WORKSPACE, fingerprint={})
FILES = 8


class Disk:
    """Stands where the C library is asked to sync."""

    def __init__(self, deed: Callable[[], int]) -> None:
        self._deed = deed

    def syncfs(self, _fd: int) -> int:
        """0, or -1 with the error's number where C has it."""
        return self._deed()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to restore."""
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A store in a directory."""
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def made(tmp_path: Path, store: DirectoryStore) -> ArchiveResult:
    """Some files in the store."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(FILES):
        (source / str(number)).write_bytes(os.urandom(1 << 20))
    return write_archive(store, REQUEST, source)


@pytest.mark.parametrize(("number", "told"), [(errno.EIO, RestoreFailed), (errno.ENOSPC, RestoreDiskFull)])
def test_what_is_not_on_the_disk_is_not_restored(
    number: int,
    told: type[Exception],
    made: ArchiveResult,
    store: DirectoryStore,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sync that fails fails the restore, however well all was unpacked."""

    def fail() -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(write_behind, "_LIBC", Disk(fail))
    with pytest.raises(told, match="could not sync"):
        restore_archive(store, made.manifest, target)


@pytest.mark.parametrize("step_bytes", [1, write_behind.WRITE_BEHIND_BYTES], ids=["large", "small"])
def test_the_last_sync_begins_when_all_is_there(
    step_bytes: int,
    made: ArchiveResult,
    store: DirectoryStore,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the disk was asked to begin before or not."""
    seen: list[int] = []

    def look() -> int:
        seen.append(sum(path.stat().st_size for path in target.iterdir()))
        return 0

    monkeypatch.setattr(write_behind, "_LIBC", Disk(look))
    monkeypatch.setattr(write_behind, "WRITE_BEHIND_BYTES", step_bytes)
    restore_archive(store, made.manifest, target)
    assert seen[-1] == FILES << 20
    assert (len(seen) > 1) == (step_bytes == 1)


def test_a_write_that_failed_long_before_is_told(
    made: ArchiveResult, store: DirectoryStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a failed write once: an early sync's error ends the restore as well."""
    answers = iter([-1])

    def fail_once() -> int:
        ctypes.set_errno(errno.EIO)
        return next(answers, 0)

    monkeypatch.setattr(write_behind, "_LIBC", Disk(fail_once))
    monkeypatch.setattr(write_behind, "WRITE_BEHIND_BYTES", 1)
    with pytest.raises(RestoreFailed, match="could not sync"):
        restore_archive(store, made.manifest, target)
