"""`podctl import --format oci` on the real parts: an image in a file becomes a new pod."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node_agent.archive.image_store import ImageManifest, Layer, image_key
from node_agent.directory_store import DirectoryStore
from state import chores
from state.database import Database
from state.generations import list_generations
from tests.integration.test_archive_oci_incoming import tar_of
from tests.integration.test_downloads import podctl
from tests.support.api_server import ApiServer
from tests.support.docker_node import pod_image
from tests.support.site import Site, two_nodes, until

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes under one reconciler."""
    with two_nodes(db, database_url, tmp_path) as made:
        yield made


@pytest.fixture
def server(site: Site, database_url: str, tmp_path: Path) -> Iterator[ApiServer]:
    """The API, which knows the gateway."""
    settings = {"gateway_url": site.reconciler.url, "default_image": pod_image()}
    with ApiServer.on(database_url, tmp_path, **settings) as running:
        yield running


def keep_without_content(store: DirectoryStore) -> ImageManifest:
    """The pods' image as nodes keep it, but for its layers' bytes, which an import never reads."""
    wanted = "{{.Id}} {{json .RootFS.Layers}}"
    argv = ["docker", "inspect", "--format", wanted, pod_image()]
    image_id, _, stack = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.partition(
        " "
    )
    argv = ["docker", "info", "--format", "{{.DockerRootDir}}/image/{{.Driver}}/imagedb/content/sha256"]
    folder = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    config = (Path(folder) / image_id.removeprefix("sha256:")).read_text()
    layers = tuple(Layer(diff_id=diff_id, tar_bytes=1) for diff_id in json.loads(stack))
    for layer in layers:
        with store.open_writer(layer.key) as writer:
            writer.write(b"x")
            writer.commit()
    manifest = ImageManifest(image_id=image_id, config=config, layers=layers)
    store.put_manifest(image_key(image_id), manifest.model_dump_json().encode())
    return manifest


def image_of(base: ImageManifest, layer: bytes) -> bytes:
    """What `podctl download --format oci` writes, but for the layers below."""
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.loads(base.config)
    config["rootfs"]["diff_ids"].append(digest)
    index = [{"Config": "config.json", "Layers": [], "RepoTags": ["mine:1"]}]
    texts = {"manifest.json": json.dumps(index).encode(), "config.json": json.dumps(config).encode()}
    return tar_of({**texts, "layer.tar": layer})


def owned(info: tarfile.TarInfo) -> None:
    """By the pod's user below their folders, else by root."""
    info.mode = 0o755
    if info.name.startswith(("workspaces", "home/coder")):
        info.uid = info.gid = 1000


def scratched(site: Site) -> list[Path]:
    """What lies in the nodes' scratch folders."""
    return [path for agent in site.agents for path in agent.node.settings.data_dir.glob("scratch/*")]


def cut_in_the_middle(site: Site, server: ApiServer, pod_id: str, folder: Path) -> None:
    """The node is killed when all was received and unpacked: who waits is told, nothing of it stays."""
    before = len(list_generations(site.db, pod_id))
    for agent in site.agents:
        agent.kill()
        agent.start(failpoints="store.writer.commit.before:1=crash")
    (folder / "mine.tar").write_bytes(tar_of({"file": b"mine"}))
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(podctl, server, "import", pod_id, str(folder / "mine.tar"))
        until(lambda: any(agent.has_died() for agent in site.agents))
        assert len(scratched(site)) == 1
        with site.db.transaction() as connection:
            # Its node has been silent for long enough.
            chores.take_back_lost(connection, LONG_AGO, timedelta(0), timedelta(hours=1))
        told = asking.result()
    assert told.returncode == 1
    (dead,) = [agent.node.node_id for agent in site.agents if agent.has_died()]
    assert f"{dead} has not been heard of".encode() in told.stderr
    assert b"as they were" in told.stderr
    assert b"Send it again" in told.stderr
    for agent in site.agents:
        agent.kill()
        agent.start()
    until(lambda: scratched(site) == [])
    assert len(list_generations(site.db, pod_id)) == before


def test_an_image_becomes_a_new_pod(site: Site, server: ApiServer, tmp_path: Path) -> None:
    """With its changes, deletions and the user's files; one that is refused, or cut off, leaves nothing."""
    base = keep_without_content(site.agents[0].node.store)
    folders = dict.fromkeys(("etc/", "opt/", "home/", "home/coder/", "workspaces/"), b"")
    files = {"opt/tool": b"installed", "home/coder/own": b"mine", "workspaces/main.c": b"int main;"}
    layer = tar_of({**folders, **files, "etc/.wh.debian_version": b""}, owned)
    (tmp_path / "pod.oci.tar").write_bytes(image_of(base, layer))

    made = podctl(
        server, "import", "bob/new", str(tmp_path / "pod.oci.tar"), "--format", "oci", "--new", "--json"
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["what"] == "both"
    pod_id = json.loads(podctl(server, "get", "bob/new", "--json").stdout)["pod_id"]
    opened = podctl(server, "start", pod_id, "--wait")
    assert opened.returncode == 0, opened.stderr
    seen = site.run(
        pod_id, "cat /opt/tool ~/own /workspaces/main.c; ls /etc/debian_version 2>&1; stat -c %a%U / ~"
    )
    assert seen.startswith("installedmineint main;")
    assert "No such file" in seen
    assert seen.split()[-2:] == ["755root", "755coder"]

    (tmp_path / "foreign.tar").write_bytes(
        image_of(base.model_copy(update={"config": '{"rootfs": {"diff_ids": ["sha256:1"]}}'}), layer)
    )
    refused = podctl(server, "import", pod_id, str(tmp_path / "foreign.tar"), "--format", "oci")
    assert refused.returncode == 1
    assert b"of no image that is kept here" in refused.stderr
    assert scratched(site) == []
    cut_in_the_middle(site, server, pod_id, tmp_path)
    with tarfile.open(fileobj=io.BytesIO(podctl(server, "download", pod_id).stdout)) as tar:
        assert "./main.c" in tar.getnames()
