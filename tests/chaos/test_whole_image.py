"""A pod of the real pod image as an OCI image and back: `tests/integration` does it with a small one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from state.database import Database
from tests.integration.test_import_image import exported, imported, loaded
from tests.support.api_server import ApiServer
from tests.support.docker_node import pod_image
from tests.support.odd_files import as_imported, as_loaded, odd_files
from tests.support.site import Site, two_nodes
from tests.support.trees import differences

CHANGES = """set -e
rm /etc/issue.net; rm -r /usr/share/doc/adduser; mkdir /opt/kept; echo in >/opt/kept/file
"""
SEEN = (
    "cat /opt/kept/file /workspaces/main.c; ls -d /etc/issue.net /usr/share/doc/adduser 2>/dev/null || true"
)


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes under one reconciler."""
    with two_nodes(db, database_url, tmp_path) as made:
        yield made


@pytest.mark.timeout(3000)
def test_a_pod_of_the_real_image_comes_back_from_its_export(
    site: Site, database_url: str, tmp_path: Path
) -> None:
    """What it lacks is told; all else is the same after `docker load`, and in a new pod made of it."""
    file = tmp_path / "pod.oci.tar"
    with ApiServer.on(
        database_url, tmp_path, gateway_url=site.reconciler.url, default_image=pod_image()
    ) as server:
        _, odd = exported(site, server, pod_image(), CHANGES, file)
        assert differences(as_loaded(odd), loaded(file)) == []
        pod_id = imported(site, server, file)
    (container,) = site.agent_of(pod_id).node.parts.runtime.of_pod(pod_id)
    assert differences(as_imported(odd), odd_files(container.id)) == []
    assert site.run_as_root(pod_id, SEEN).splitlines() == ["in", "int main;"]
    assert site.answers(pod_id)
