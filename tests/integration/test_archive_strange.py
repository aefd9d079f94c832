"""Strange trees on the real engine and in great number: what a pod's user can do, and come back to."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node_agent.archive.commit import ArchiveResult, write_archive
from node_agent.archive.restore import restore_archive
from node_agent.directory_store import DirectoryStore
from state.wire import CreateWorkspace, PodSpec, RestorePod, StartPod
from tests.support.archive_requests import REQUEST
from tests.support.docker_node import ONE, DockerNode, pod_image, source_of
from tests.support.pod_tree import differences as pod_differences
from tests.support.pod_tree import pod_tree
from tests.support.trees import differences, snapshot
from tests.support.vandalism import CAPABILITY, TOPS, VANDALISM


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own."""
    node = DockerNode(tmp_path)
    yield node
    node.clean_up()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty tree."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def there_and_back(source: Path, tmp_path: Path) -> ArchiveResult:
    """Archive and restore into the folder `target`."""
    store, target = DirectoryStore(tmp_path / "store"), tmp_path / "target"
    made = write_archive(store, REQUEST, source)
    target.mkdir()
    restore_archive(store, made.manifest, target)
    return made


def test_whatever_root_does_to_the_image_comes_back(node: DockerNode) -> None:
    """Deleted, opaque, replaced, renamed, linked, special, sparse: the restored pod sees no difference."""
    node.running_pod(ONE)
    done = node.run(ONE, f"{VANDALISM}\n{CAPABILITY} && echo done", user="root")
    assert done.endswith("done\n")
    before = pod_tree(node.container(ONE).id, TOPS)
    node.stop(ONE)
    saved = node.saved(ONE)
    assert saved.size_bytes < 5_000_000

    node.done(CreateWorkspace(), epoch=2)
    spec = PodSpec(name="ide", image=pod_image(), image_id=saved.image_id)
    node.done(RestorePod(spec=spec, archive=source_of(saved)), ONE, epoch=2)
    node.done(StartPod(), ONE, epoch=2)

    assert pod_differences(before, pod_tree(node.container(ONE, epoch=2).id, TOPS)) == {}
    asked = "stat -c %h a/setuid; stat -c %i a/setuid b/second-name | sort -u | wc -l; stat -c %b sparse"
    names, inodes, blocks = node.run(ONE, f"cd /opt/kept; {asked}", user="root", epoch=2).split()
    assert (names, inodes) == ("2", "1")
    assert int(blocks) * 512 < 1 << 20


def test_twenty_thousand_small_files_come_back(source: Path, tmp_path: Path) -> None:
    """In 200 folders, every hundredth with a second name in another one: no difference."""
    for number in range(20_000):
        folder = source / f"d{number % 200}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}").write_bytes(b"%d" % number)
        if number % 100 == 0:
            os.link(folder / f"{number}", source / f"second-{number}")
    before = snapshot(source)
    there_and_back(source, tmp_path)
    assert differences(before, snapshot(tmp_path / "target")) == []


def test_a_folder_of_two_hundred_thousand_entries_comes_back(source: Path, tmp_path: Path) -> None:
    """Every name is there again, each of them one of 50,000 of the same file."""
    folder = os.open(source, os.O_DIRECTORY)
    for number in range(200_000):
        first = number // 50_000 * 50_000
        if number == first:
            os.mknod(f"{number}", dir_fd=folder)
        else:
            os.link(f"{first}", f"{number}", src_dir_fd=folder, dst_dir_fd=folder)
    os.close(folder)
    made = there_and_back(source, tmp_path)
    assert made.manifest.entries == 200_001
    assert sorted(os.listdir(tmp_path / "target")) == sorted(os.listdir(source))  # noqa: PTH208 (too many for Paths)


@contextmanager
def flagged(path: Path, flag: str) -> Iterator[None]:
    """A file or folder that nobody may change, for a while."""
    subprocess.run(["chattr", f"+{flag}", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{flag}", path], check=True)


def test_files_that_nobody_may_change_come_back_ordinary_with_a_notice(source: Path, tmp_path: Path) -> None:
    """Immutable file and append-only folder: content and all else the same, the flags named as lost."""
    (source / "sealed").write_bytes(b"x")
    (source / "journal").mkdir()
    (source / "journal" / "entry").write_bytes(b"y")
    before = snapshot(source)
    with flagged(source / "sealed", "i"), flagged(source / "journal", "a"):
        (notice,) = there_and_back(source, tmp_path).manifest.notices
    assert "chattr" in notice
    assert notice.endswith("journal, sealed")
    assert differences(before, snapshot(tmp_path / "target")) == []
    (tmp_path / "target" / "sealed").write_bytes(b"changed")
