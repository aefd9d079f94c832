"""An image becomes a pod's archive again: round trips on the real engine, and what is refused."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.archive.commit import read_manifest, write_archive
from node_agent.archive.export import Lost, Part
from node_agent.archive.incoming import ImportRefused, unpack
from node_agent.archive.oci import as_oci
from node_agent.archive.oci_incoming import files_tree, look_through, open_image, pod_tree
from node_agent.archive.restore import restore_archive
from state.model import TargetKind
from state.wire import ArchiveMade
from tests.support.archive_requests import REQUEST
from tests.support.docker_node import DockerNode, own_pod
from tests.support.small_images import CHANGES, SEEN, Small, run, tar_of
from tests.support.trees import differences, snapshot

POD = own_pod("oci")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own."""
    node = DockerNode(tmp_path)
    yield node
    node.clean_up()


class Incoming:
    """What was sent, unpacked into two trees."""

    def __init__(self, node: DockerNode, folder: Path, data: bytes) -> None:
        spool, self.pod, self.files = (folder / name for name in ("spool", "pod", "files"))
        for made in (spool, self.pod, self.files):
            made.mkdir(parents=True)
        self.lost = Lost()
        self.opened = open_image(node.store, in_pieces(data), spool)
        layer = look_through(self.opened)
        unpack(pod_tree(self.opened, layer, self.lost), self.pod)
        self.has_files = layer.has_files
        unpack(files_tree(self.opened, self.lost), self.files)


def in_pieces(data: bytes) -> Iterator[bytes]:
    """As it may come over the network."""
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


def changed_pod(node: DockerNode, small: Small) -> tuple[str, ArchiveMade, ArchiveMade]:
    """A pod whose user did all that a layer has a word for; its container and archives."""
    pod = node.stopped_pod(POD, image=small.names[1])
    run("start", pod.id)
    run("exec", pod.id, "sh", "-c", CHANGES)
    upper = node.parts.ways.upper_dir(pod) / "opt" / "new"
    (upper / "_.wh.y").write_text("no mark")
    os.setxattr(upper / "x", "user.mark", b"1")
    os.chown(upper / "link", 1234, 5678, follow_symlinks=False)
    os.utime(upper / "y", ns=(1, 915_235_200_123_456_789))
    work = node.files() / "work"
    work.mkdir()
    (work / "file").write_text("mine")
    os.link(work / "file", work / "second")
    os.chown(work, 1000, 1000)
    run("stop", "--time", "0", pod.id)
    node.parts.images.keep_all()
    return pod.id, node.saved(POD), node.saved()


def exported(node: DockerNode, *made: ArchiveMade) -> bytes:
    """As `podctl download --format oci`."""
    parts = [Part(read_manifest(node.store, one.manifest_key, one.manifest_digest)) for one in made]
    return b"".join(as_oci(node.store, parts))


def restored(node: DockerNode, made: ArchiveMade, folder: Path) -> Path:
    """What the archive holds."""
    folder.mkdir()
    restore_archive(node.store, read_manifest(node.store, made.manifest_key, made.manifest_digest), folder)
    return folder


def test_what_was_exported_comes_back_as_it_was(node: DockerNode, small: Small, tmp_path: Path) -> None:
    """Deletions, opaque folders, links, modes, owners, escaped names, attributes, times."""
    _, pod, files = changed_pod(node, small)
    made = Incoming(node, tmp_path / "in", exported(node, pod, files))
    assert (made.has_files, made.lost.sentences()) == (True, [])
    for tree, archive in ((made.pod, pod), (made.files, files)):
        before = restored(node, archive, tmp_path / str(archive.size_bytes))
        different = differences(snapshot(before), snapshot(tree))
        # A mark that something is deleted has no time of its own in a layer, and `/` is not in it.
        assert [line for line in different if not line.endswith("is 0")] == []
    assert made.pod.stat().st_mode & 0o7777 == 0o755


def test_an_imported_image_is_a_pod_again(node: DockerNode, small: Small, tmp_path: Path) -> None:
    """Loaded and saved by the engine meanwhile, archived, and restored into a container of the same image."""
    container, pod, files = changed_pod(node, small)
    del container
    data = exported(node, pod, files)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        name = json.loads(tar.extractfile("manifest.json").read())[0]["RepoTags"][0]  # type: ignore[union-attr]
    try:
        run("load", given=data)
        saved = subprocess.run(["docker", "save", name], capture_output=True, check=True).stdout
    finally:
        subprocess.run(["docker", "rmi", "-f", name], capture_output=True, check=False)
    made = Incoming(node, tmp_path / "in", saved)
    request = replace(
        REQUEST,
        kind=TargetKind.POD,
        target_id=POD,
        attempt=2 * 10**9,
        number=7,
        method="overlay2-upper",
        image_id=made.opened.base.image_id,
    )
    again = write_archive(node.store, request, made.pod)
    assert again.manifest.image_id == small.ids[1]
    seen = {}
    for manifest in (read_manifest(node.store, pod.manifest_key, pod.manifest_digest), again.manifest):
        changed = b"".join(as_oci(node.store, [Part(manifest)]))
        with tarfile.open(fileobj=io.BytesIO(changed)) as tar:
            tag = json.loads(tar.extractfile("manifest.json").read())[0]["RepoTags"][0]  # type: ignore[union-attr]
        try:
            run("load", given=changed)
            seen[manifest.number] = run("run", "--rm", "--network", "none", tag, "sh", "-c", SEEN)
        finally:
            subprocess.run(["docker", "rmi", "-f", tag], capture_output=True, check=False)
    assert len(set(seen.values())) == 1, seen


def layout(base: str, layer: bytes, *, diff_ids: list[str] | None = None, images: int = 1) -> bytes:
    """An image by somebody else, as docker saves it."""
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {"rootfs": {"diff_ids": diff_ids if diff_ids is not None else [base, digest]}}
    texts = {
        "c.json": json.dumps(config).encode(),
        "manifest.json": json.dumps([{"Config": "c.json", "Layers": []}] * images).encode(),
        "l/layer.tar": layer,
    }
    return tar_of(texts)


@pytest.fixture
def base(node: DockerNode, small: Small) -> str:
    """The one layer of a kept image."""
    node.stopped_pod(POD, image=small.names[0])
    node.parts.images.keep_all()
    return run("inspect", "--format", "{{index .RootFS.Layers 0}}", small.names[0]).strip()


def test_what_cannot_be_a_pod_is_refused_with_what_to_do(node: DockerNode, base: str, tmp_path: Path) -> None:
    """A foreign image, several in one file, a layer that is missing, no image at all, a way out."""
    good = tar_of({"opt/": b"", "opt/file": b"x"})
    refused = {
        "lower 0 are of no image": layout(base, good, diff_ids=["sha256:" + "1" * 64]),
        "It has 2 images": layout(base, good, images=2),
        "was not sent with it": layout(base, good, diff_ids=[base, "sha256:" + "2" * 64]),
        "It is no image": good,
        "not an image that can be read": b"no tar at all" * 100,
        "leads out": layout(base, tar_of({"opt/": b"", "opt/../../out": b"x"})),
        "leaves out the folder 'opt'": layout(base, tar_of({"opt/file": b"x"})),
    }
    for number, (why, data) in enumerate(refused.items()):
        with pytest.raises(ImportRefused, match=why):
            Incoming(node, tmp_path / str(number), data)


def test_a_strangers_layer_says_nothing_to_the_kernel(node: DockerNode, base: str, tmp_path: Path) -> None:
    """Attributes that redirect, and devices that delete, are left out and told; a gzip layer is read too."""

    def evil(info: tarfile.TarInfo) -> None:
        info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc"}
        if info.name == "opt/gone":
            info.type, info.size = tarfile.CHRTYPE, 0

    made = Incoming(
        node, tmp_path / "in", layout(base, tar_of({"opt/": b"", "opt/gone": b"", "opt/f": b"x"}, evil))
    )
    assert sorted(path.name for path in (made.pod / "opt").iterdir()) == ["f"]
    assert os.listxattr(made.pod / "opt") == []
    assert len(made.lost.sentences()) == 2
    assert not made.has_files
