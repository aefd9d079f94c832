"""Trees at the edges: huge holes, deep paths, long names, many entries; and memory that stays small."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.archive.commit import ArchiveResult, write_archive
from node_agent.archive.errors import CaptureFailed
from node_agent.archive.restore import restore_archive
from node_agent.directory_store import DirectoryStore
from tests.support.archive_requests import REQUEST
from tests.support.s3_servers import CREDENTIALS, rclone_server
from tests.support.trees import differences, snapshot

MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty tree."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def there_and_back(source: Path, tmp_path: Path) -> ArchiveResult:
    """Archive, restore, and find no difference."""
    before, target, store = snapshot(source), tmp_path / "target", DirectoryStore(tmp_path / "store")
    made = write_archive(store, REQUEST, source)
    target.mkdir()
    restore_archive(store, made.manifest, target)
    assert differences(before, snapshot(target)) == []
    return made


def make_deep(root: Path, path_bytes: int) -> None:
    """A file at the end of a path of this length, counted from the root."""
    fd = os.open(root, os.O_DIRECTORY)
    left = path_bytes
    while left > 251:
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd, left = below, left - 201
    os.close(os.open("f" * left, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def deep_content(root: Path) -> list[str]:
    """The names on the way down."""
    names, fd = [], os.open(root, os.O_DIRECTORY)
    while True:
        (name,) = os.listdir(fd)  # noqa: PTH208 (the path is too long for a Path)
        names.append(name)
        try:
            below = os.open(name, os.O_DIRECTORY, dir_fd=fd)
        except NotADirectoryError:
            os.close(fd)
            return names
        os.close(fd)
        fd = below


def test_a_huge_sparse_file_stays_sparse(source: Path, tmp_path: Path) -> None:
    """4 GiB of hole with a few bytes in it: a few kB in the store, and holes again afterwards."""
    with (source / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(4096 * MIB)
        file.write(b"end")
    store = DirectoryStore(tmp_path / "store")
    made = write_archive(store, REQUEST, source)
    assert made.manifest.size_bytes < 10_000
    target = tmp_path / "target"
    target.mkdir()
    restore_archive(store, made.manifest, target)
    restored = (target / "sparse").stat()
    assert restored.st_size == 4096 * MIB + 3
    assert restored.st_blocks * 512 < MIB


def test_a_path_of_four_thousand_bytes_comes_back(source: Path, tmp_path: Path) -> None:
    """The tree may use the whole length of a path for itself, wherever it lies."""
    make_deep(source, 4000)
    store, target = DirectoryStore(tmp_path / "store"), tmp_path / "target"
    made = write_archive(store, REQUEST, source)
    target.mkdir()
    restore_archive(store, made.manifest, target)
    assert deep_content(target) == deep_content(source)


def test_a_path_that_could_not_be_restored_stops_the_archive(source: Path, tmp_path: Path) -> None:
    """Longer than the kernel takes: said before anything is stored, with what to do."""
    make_deep(source, 4200)
    store = DirectoryStore(tmp_path / "store")
    with pytest.raises(CaptureFailed, match="Shorten"):
        write_archive(store, REQUEST, source)
    assert store.list("") == ()


def test_five_thousand_small_files_come_back(source: Path, tmp_path: Path) -> None:
    """Many entries in one folder, each of them counted."""
    for number in range(5000):
        (source / f"{number}").write_bytes(b"%d" % number)
    assert there_and_back(source, tmp_path).manifest.entries == 5001


def test_sockets_are_left_out_with_a_notice(source: Path, tmp_path: Path) -> None:
    """The notice names them; the rest comes back."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "agent.sock"))
    (source / "kept").write_bytes(b"x")
    (notice,) = there_and_back(source, tmp_path).manifest.notices
    assert "socket" in notice
    assert "agent.sock" in notice


def test_linked_fifos_come_back_apart_with_a_notice(source: Path, tmp_path: Path) -> None:
    """tar keeps no hard links between special files; the user is told."""
    os.mkfifo(source / "one")
    os.link(source / "one", source / "two")
    (notice,) = there_and_back(source, tmp_path).manifest.notices
    assert "one, two" in notice


def test_memory_stays_bounded_whatever_the_size(source: Path, tmp_path: Path) -> None:
    """300 MB that do not compress go up and come down through S3 in at most 128 MiB above the idle agent."""
    with (source / "large").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(MIB))
    (tmp_path / "target").mkdir()
    with rclone_server(tmp_path / "s3", tmp_path / "log") as endpoint:
        url = f"s3://pods?endpoint={endpoint}"
        ran = subprocess.run(
            [sys.executable, "-m", "bench.archive_memory", url, str(source), str(tmp_path / "target")],
            env={**os.environ, **CREDENTIALS},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) <= 128 * 1024
    assert (tmp_path / "target" / "large").stat().st_size == 300 * MIB
