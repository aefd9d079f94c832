"""Labs on real volumes: content arrives once, is the learner's, and no archive gets out of its place."""

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from state.wire import CreatePod, CreateWorkspace, PodSpec
from tests.support.docker_node import ONE, TWO, DockerNode

IMAGE = "debian:bookworm-slim"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node with an empty workspace."""
    node = DockerNode(tmp_path)
    node.done(CreateWorkspace())
    yield node
    node.clean_up()


def create(lab: str) -> CreatePod:
    """A pod with a lab."""
    return CreatePod(spec=PodSpec(name="ide", image=IMAGE, lab=lab))


def test_a_lab_belongs_to_the_learner_and_keeps_its_times(node: DockerNode) -> None:
    """Files come with their times, owned by the pod's user."""
    node.publish_lab("hello", {"src/main.py": "print()"})
    node.done(create("hello"), ONE)
    for path in (node.files() / "hello", node.files() / "hello/src", node.files() / "hello/src/main.py"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1000, 1000)
    assert (node.files() / "hello/src/main.py").stat().st_mtime == 1_600_000_000


def test_a_learners_work_is_never_overwritten(node: DockerNode) -> None:
    """A second pod with the same lab finds it there, and leaves it."""
    node.publish_lab("hello", {"task": "new"})
    node.done(create("hello"), ONE)
    (node.files() / "hello/task").write_text("solved")
    node.done(create("hello"), TWO)
    assert (node.files() / "hello/task").read_text() == "solved"


def test_a_link_in_the_labs_place_is_not_followed(node: DockerNode, tmp_path: Path) -> None:
    """Whatever a learner has put there, nothing outside of the workspace is written."""
    node.publish_lab("hello", {"task": "new"})
    (node.files() / "hello").symlink_to(tmp_path)
    node.done(create("hello"), ONE)
    assert not (tmp_path / "task").exists()


def test_a_lab_that_is_not_there_is_named_in_the_message(node: DockerNode) -> None:
    """The failure is permanent and says which lab."""
    result = node.refused(create("nowhere"), ONE)
    assert (result.code, result.permanent) == ("lab_not_found", True)
    assert "nowhere" in result.message
    assert not node.has_container(ONE)


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "link/out"])
def test_a_lab_that_leads_out_of_its_place_is_refused(node: DockerNode, name: str) -> None:
    """Nothing of a hostile archive arrives."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo(name))
    assert_refused(node, buffer.getvalue())


def test_a_lab_that_was_cut_between_two_files_is_refused(node: DockerNode) -> None:
    """Half a lab is none, though it looks whole to tar."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("first"))
        cut = buffer.tell()
        tar.addfile(tarfile.TarInfo("second"))
    assert "breaks off" in assert_refused(node, buffer.getvalue()[:cut])


def assert_refused(node: DockerNode, tar: bytes) -> str:
    """Once for all, with nothing left in the workspace or beside it; the message."""
    with node.store.open_writer("labs/bad.tar") as writer:
        writer.write(tar)
        writer.commit()
    result = node.refused(create("bad"), ONE)
    assert (result.code, result.permanent) == ("lab_invalid", True)
    assert list(node.files().iterdir()) == []
    assert [p.name for p in node.files().parent.iterdir() if p.name.startswith("lab-")] == []
    return result.message
