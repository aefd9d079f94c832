"""`podctl import --format oci` on the real parts: an image in a file becomes a new pod."""

import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node_agent.archive.commit import read_manifest
from node_agent.archive.restore import restore_archive
from state import chores
from state.database import Database
from state.generations import list_generations
from tests.integration.test_downloads import podctl, put_away
from tests.support.api_server import ApiServer
from tests.support.odd_files import TOLD, as_imported, as_loaded, make_odd_files, odd_files
from tests.support.site import Site, two_nodes, until
from tests.support.small_images import CHANGES, SEEN, Small, run, tar_of
from tests.support.trees import Snapshot, differences, snapshot

_CURRENT = """
    SELECT a.manifest_key, a.manifest_digest FROM pod p JOIN workspace w ON w.id = p.workspace_id
      JOIN archive a ON a.id = CASE %(kind)s WHEN 'pod' THEN p.archive_id ELSE w.archive_id END
     WHERE p.id = %(pod)s
"""
# Of an image of more than a gigabyte, on a machine that has other work.
BIG_TIMEOUT_S = 900
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes under one reconciler."""
    with two_nodes(db, database_url, tmp_path) as made:
        yield made


@pytest.fixture
def server(site: Site, small: Small, database_url: str, tmp_path: Path) -> Iterator[ApiServer]:
    """The API, which knows the gateway; the pod image itself would be copied about for minutes."""
    settings = {"gateway_url": site.reconciler.url, "default_image": small.names[1]}
    with ApiServer.on(database_url, tmp_path, **settings) as running:
        yield running


def exported(site: Site, server: ApiServer, image: str, changes: str, file: Path) -> tuple[str, Snapshot]:
    """A pod whose user did what a layer has a word for and what it has none for, put away, and downloaded;
    its id, and its odd files."""
    pod_id = site.open(image=image)
    site.until_is(pod_id, "running")
    (container,) = site.agent_of(pod_id).node.parts.runtime.of_pod(pod_id)
    run("exec", "--user", "0", container.id, "sh", "-c", f"{changes} echo 'int main;' >/workspaces/main.c")
    make_odd_files(container.id)
    before = odd_files(container.id)
    put_away(site, pod_id, 1)
    # What agents do every five minutes.
    assert site.agents[0].node.parts.images.keep(container.image_id)
    asked = ("download", pod_id, "--format", "oci", "--what", "all", "--output", str(file))
    done = podctl(server, *asked, timeout_s=BIG_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert [kind for kind in TOLD if kind not in done.stderr.decode()] == []
    return pod_id, before


def loaded(file: Path) -> Snapshot:
    """The odd files in a container of the image, by the engine's own tools."""
    name = run("load", "--input", str(file), timeout_s=BIG_TIMEOUT_S).split()[-1]
    try:
        argv = ("run", "--detach", "--network", "none", "--entrypoint", "sleep", name, "600")
        container_id = run(*argv).strip()
        try:
            return odd_files(container_id)
        finally:
            run("rm", "--force", container_id)
    finally:
        run("rmi", "--force", name)


def imported(site: Site, server: ApiServer, file: Path) -> str:
    """The pod that is made of the image."""
    asked = ("import", "bob/new", str(file), "--format", "oci", "--new", "--json")
    made = podctl(server, *asked, timeout_s=BIG_TIMEOUT_S)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["what"] == "both"
    pod_id: str = json.loads(podctl(server, "get", "bob/new", "--json").stdout)["pod_id"]
    site.until_is(pod_id, "running")
    return pod_id


def trees_of(site: Site, pod_id: str, folder: Path) -> list[Snapshot]:
    """What the pod's current archive holds, and that of its user's files."""
    trees = []
    for kind in ("pod", "workspace"):
        with site.db.transaction() as connection:
            row = connection.execute(_CURRENT, {"pod": pod_id, "kind": kind}).fetchone()
        assert row is not None
        target, store = folder / f"{pod_id}-{kind}", site.agents[0].node.store
        target.mkdir()
        restore_archive(store, read_manifest(store, row["manifest_key"], row["manifest_digest"]), target)
        trees.append(snapshot(target))
    return trees


def scratched(site: Site) -> list[Path]:
    """What lies in the nodes' scratch folders."""
    return [path for agent in site.agents for path in agent.node.settings.data_dir.glob("scratch/*")]


def cut_in_the_middle(site: Site, server: ApiServer, pod_id: str, folder: Path) -> None:
    """The node is killed when all was received and unpacked: who waits is told, nothing of it stays."""
    before = len(list_generations(site.db, pod_id))
    for agent in site.agents:
        agent.begin_anew(failpoints="store.writer.commit.before:1=crash")
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
        agent.begin_anew()
    until(lambda: scratched(site) == [])
    assert len(list_generations(site.db, pod_id)) == before


def test_an_exported_pod_becomes_a_new_one(
    site: Site, server: ApiServer, small: Small, tmp_path: Path
) -> None:
    """With the same tree but for what was told, its user's files too, as public tools have them; an image
    that is refused, or cut off, leaves nothing."""
    file = tmp_path / "pod.oci.tar"
    old_id, odd = exported(site, server, small.names[1], CHANGES, file)
    assert differences(as_loaded(odd), loaded(file)) == []
    pod_id = imported(site, server, file)
    (container,) = site.agent_of(pod_id).node.parts.runtime.of_pod(pod_id)
    assert container.image_id == small.ids[1]
    assert differences(as_imported(odd), odd_files(container.id)) == []
    for before, after in zip(trees_of(site, old_id, tmp_path), trees_of(site, pod_id, tmp_path), strict=True):
        # A mark that something is deleted has no time of its own in a layer, and `/` is not in it.
        different = [line for line in differences(before, after) if not line.endswith("is 0")]
        assert [line for line in different if "sparse" not in line] == []
    assert "int main;" in run("exec", container.id, "sh", "-c", f"{SEEN}; cat /workspaces/main.c")

    texts = {
        "manifest.json": '[{"Config": "c", "Layers": []}]',
        "c": '{"rootfs": {"diff_ids": ["sha256:1"]}}',
    }
    (tmp_path / "foreign.tar").write_bytes(tar_of({name: text.encode() for name, text in texts.items()}))
    refused = podctl(server, "import", pod_id, str(tmp_path / "foreign.tar"), "--format", "oci")
    assert refused.returncode == 1
    assert b"of no image that is kept here" in refused.stderr
    assert scratched(site) == []
    cut_in_the_middle(site, server, pod_id, tmp_path)
    with tarfile.open(fileobj=io.BytesIO(podctl(server, "download", pod_id).stdout)) as tar:
        assert "./main.c" in tar.getnames()
