"""Somebody's own tar as a workspace archive: theirs when it is restored, and nothing that leads out of it."""

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.archive.incoming import ImportRefused, import_tree
from node_agent.archive.restore import restore_archive
from node_agent.directory_store import DirectoryStore
from tests.support.archive_requests import REQUEST as OF_A_WORKSPACE

REQUEST = replace(OF_A_WORKSPACE, epoch=0)
MADE = (
    "mkdir -p t/d; echo one >t/d/file; ln t/d/file t/second; ln -s d/file t/link; mkfifo t/pipe; "
    "chmod 4755 t/d/file"
)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An empty store."""
    return DirectoryStore(tmp_path / "store")


def in_pieces(data: bytes) -> Iterator[bytes]:
    """As it may come over the network."""
    yield data[:3]
    for start in range(3, len(data), 1000):
        yield data[start : start + 1000]


def imported(store: DirectoryStore, data: bytes, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that the archive restores to, and its notices."""
    scratch, target = tmp_path / "scratch", tmp_path / "target"
    scratch.mkdir()
    target.mkdir()
    made = import_tree(store, REQUEST, in_pieces(data), scratch)
    restore_archive(store, made.manifest, target)
    return target, made.manifest.notices


@pytest.mark.parametrize("flag", ["--no-auto-compress", "--gzip", "--xz", "--zstd", "--bzip2"])
def test_a_folder_becomes_a_workspace(store: DirectoryStore, tmp_path: Path, flag: str) -> None:
    """Plain or compressed; the pod user's own; a FIFO is left out and told, setuid is taken off."""
    subprocess.run(["sh", "-ec", MADE], cwd=tmp_path, check=True)
    data = subprocess.run(
        ["tar", "-c", flag, "-C", "t", "."], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    target, notices = imported(store, data, tmp_path)
    file = target / "d" / "file"
    assert file.read_text() == "one\n"
    assert (file.stat().st_uid, file.stat().st_mode & 0o7777, file.stat().st_nlink) == (1000, 0o755, 2)
    assert (target / "link").readlink() == Path("d/file")
    assert not (target / "pipe").exists()
    assert any("pipe" in notice for notice in notices)


@pytest.mark.parametrize("name", ["../out", "a/../../out"])
def test_what_leads_out_is_refused(store: DirectoryStore, tmp_path: Path, name: str) -> None:
    """Before anything is committed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(ImportRefused, match="leads out"):
        imported(store, buffer.getvalue(), tmp_path)
    assert store.list("") == ()


def test_a_link_that_leads_out_is_kept_and_not_followed(store: DirectoryStore, tmp_path: Path) -> None:
    """A file behind it stays inside, or the import fails; nothing is written where the link leads."""
    buffer = io.BytesIO()
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("link/file"))
    with pytest.raises(ImportRefused):
        imported(store, buffer.getvalue(), tmp_path)
    assert list(outside.iterdir()) == []


def tar_of_two(compress: Callable[[bytes], bytes] = bytes) -> tuple[bytes, int]:
    """Two files, compressed in two streams of their own, and where the second one begins."""
    buffer, halves = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("first", "second"):
            halves.append(buffer.tell())
            tar.addfile(tarfile.TarInfo(name))
    whole, cut = buffer.getvalue(), halves[1]
    first = compress(whole[:cut])
    return first + compress(whole[cut:]), len(first)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_that_was_cut_between_two_files_is_refused(
    store: DirectoryStore, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    """It looks whole to tar; half of somebody's work would be taken for all of it."""
    data, cut = tar_of_two(compress)
    with pytest.raises(ImportRefused, match="breaks off"):
        imported(store, data[:cut], tmp_path)
    assert store.list("") == ()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_what_was_compressed_in_several_streams_comes_whole(
    store: DirectoryStore, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    """As programs write it that use all processors; padded with zeros as on a tape."""
    target, _ = imported(store, tar_of_two(compress)[0] + bytes(600), tmp_path)
    assert sorted(path.name for path in target.iterdir()) == ["first", "second"]


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, b"\x1f\x8b\x08garbage"])
def test_what_is_no_tar_is_refused(store: DirectoryStore, tmp_path: Path, data: bytes) -> None:
    """With a sentence, not with a broken agent."""
    with pytest.raises(ImportRefused, match="not a tar"):
        imported(store, data, tmp_path)
