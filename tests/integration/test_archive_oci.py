"""A pod as an OCI image: loaded by the real engine, it is what the pod was, but for what it names."""

import json
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from node_agent.archive.commit import read_manifest
from node_agent.archive.export import ExportRefused, Part
from node_agent.archive.oci import as_oci
from state.model import OCI_NOT_KEPT
from state.wire import ArchiveMade
from tests.support.docker_node import DockerNode, own_pod
from tests.support.small_images import CHANGES, SEEN, Small, run

POD = own_pod("oci")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own."""
    node = DockerNode(tmp_path)
    yield node
    node.clean_up()


def part(node: DockerNode, made: ArchiveMade) -> Part:
    """The archive, to be exported."""
    return Part(read_manifest(node.store, made.manifest_key, made.manifest_digest))


def test_the_engine_loads_a_pod_as_an_image(node: DockerNode, small: Small) -> None:
    """Deletions, opaque folders, links, modes; a name that a layer cannot have is escaped, and told."""
    pod = node.stopped_pod(POD, image=small.names[1])
    run("start", pod.id)
    run("exec", pod.id, "sh", "-c", CHANGES)
    before = run("exec", pod.id, "sh", "-c", SEEN).replace(".wh.x", "_.wh.x")
    (node.files() / "work").write_text("mine")
    run("stop", "--time", "0", pod.id)
    saved, files = node.saved(POD), node.saved()
    with pytest.raises(ExportRefused, match="not in the store yet"):
        next(as_oci(node.store, [part(node, saved)]))
    node.parts.images.keep_all()

    made = b"".join(as_oci(node.store, [part(node, saved), part(node, files)]))
    with tarfile.open(fileobj=BytesIO(made)) as tar:
        told = {name: json.loads(tar.extractfile(name).read()) for name in ("index.json", "manifest.json")}  # type: ignore[union-attr]
        digest = told["index.json"]["manifests"][0]["digest"].replace(":", "/")
        manifest = json.loads(tar.extractfile(f"blobs/{digest}").read())  # type: ignore[union-attr]
    assert "opt/new/.wh.x" in manifest["annotations"][OCI_NOT_KEPT]
    name = told["manifest.json"][0]["RepoTags"][0]
    try:
        run("load", given=made)
        argv = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            name,
            "sh",
            "-c",
            f"{SEEN}; cat /workspaces/work",
        ]
        after = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run(["docker", "rmi", "-f", name], capture_output=True, check=False)
    assert sorted(after.splitlines()) == sorted([*before.splitlines(), "mine"])


def test_files_alone_are_no_image(node: DockerNode, small: Small) -> None:
    """Said with what to take instead."""
    node.stopped_pod(POD, image=small.names[0])
    with pytest.raises(ExportRefused, match="--what pod"):
        next(as_oci(node.store, [part(node, node.saved())]))
