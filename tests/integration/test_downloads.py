"""Downloads, on the real parts: podctl asks the API, a node sends through the gateway, nothing is spooled."""

import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest

from state.database import Database
from state.model import Desired
from tests.integration.test_api_podctl import CHECKOUT, COMMAND
from tests.support.api_server import ApiServer
from tests.support.site import Site, two_nodes, until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all tests here."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes under one reconciler."""
    with two_nodes(db, database_url, tmp_path) as made:
        yield made


@pytest.fixture
def server(site: Site, database_url: str, tmp_path: Path) -> Iterator[ApiServer]:
    """The API, which knows the gateway."""
    with ApiServer.on(database_url, tmp_path, gateway_url=site.reconciler.url) as running:
        yield running


def podctl(
    server: ApiServer, *arguments: str, timeout_s: float = 120
) -> "subprocess.CompletedProcess[bytes]":
    """podctl with what it prints as bytes."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CODEPODS_")}
    told = {"CODEPODS_URL": server.url, "CODEPODS_TOKEN": server.tokens["admin"]}
    return subprocess.run(
        [*COMMAND, *arguments], env=clean | told, cwd=CHECKOUT, capture_output=True, timeout=timeout_s
    )


def put_away(site: Site, pod_id: str, number: int) -> None:
    """Archived, its user's files with it."""
    site.want(pod_id, Desired.ARCHIVED)
    site.until_is(pod_id, "archived")
    saved = "SELECT 1 FROM archive WHERE target_kind = 'workspace' AND number = %s"
    with site.db.transaction() as connection:
        until(lambda: connection.execute(saved, (number,)).fetchone() is not None)


def test_an_archived_pods_files_are_downloaded_in_each_form(site: Site, server: ApiServer) -> None:
    """Files as tar and zip, the pod's changes, both together, an earlier number; nothing runs meanwhile."""
    pod_id = site.open()
    with server.client("revpro") as client:
        early = client.get(f"/api/v1/pods/{pod_id}/download")
        assert (early.status_code, early.json()["code"]) == (404, "archive_not_found")
    site.until_is(pod_id, "running")
    site.run(pod_id, "echo first >/workspaces/file; echo mine >~/own")
    put_away(site, pod_id, 1)
    site.want(pod_id, Desired.RUNNING)
    site.until_is(pod_id, "running")
    site.run(pod_id, "echo second >/workspaces/file; head -c 3000000 /dev/urandom >/workspaces/large")
    put_away(site, pod_id, 2)

    made = podctl(server, "download", "alice/ide")
    assert made.returncode == 0, made.stderr
    assert b"Archive 2, saved 20" in made.stderr
    with tarfile.open(fileobj=BytesIO(made.stdout)) as tar:
        file, large = tar.extractfile("./file"), tar.getmember("./large")
        assert file is not None
        assert file.read() == b"second\n"
        assert (large.size, large.uid) == (3_000_000, 1000)

    earlier = podctl(server, "download", pod_id, "--at", "1", "--format", "zip")
    with zipfile.ZipFile(BytesIO(earlier.stdout)) as zipped:
        assert zipped.read("file") == b"first\n"
        assert "large" not in zipped.namelist()

    both = podctl(server, "download", pod_id, "--what", "all")
    with tarfile.open(fileobj=BytesIO(both.stdout)) as tar:
        names = tar.getnames()
    assert {"./pod/home/coder/own", "./workspace/file"} <= set(names)

    refused = podctl(server, "download", pod_id, "--at", "9")
    assert refused.returncode == 1
    assert b"no archive number 9" in refused.stderr.lower()


def test_a_folder_is_imported_and_taken_into_use(site: Site, server: ApiServer, tmp_path: Path) -> None:
    """The archive is there beside the others; going back to it brings the files, owned by the pod's user."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    site.run(pod_id, "echo old >/workspaces/file")
    (tmp_path / "mine" / "src").mkdir(parents=True)
    (tmp_path / "mine" / "src" / "main.c").write_text("int main;\n")
    made = podctl(server, "import", pod_id, str(tmp_path / "mine"), "--json")
    assert made.returncode == 0, made.stderr
    number = json.loads(made.stdout)["number"]
    assert site.run(pod_id, "cat /workspaces/file") == "old\n"

    back = podctl(server, "restore", pod_id, "--what", "workspace", "--at", str(number), "--wait")
    assert back.returncode == 0, back.stderr
    assert site.run(pod_id, "cd /workspaces; ls; cat src/main.c; stat -c %u src/main.c").split() == [
        "src",
        "int",
        "main;",
        "1000",
    ]
    (tmp_path / "no.tar").write_text("no tar at all " * 100)
    refused = podctl(server, "import", pod_id, str(tmp_path / "no.tar"))
    assert refused.returncode == 1
    assert b"not a tar" in refused.stderr


def test_what_cannot_be_read_or_written_here_is_told(
    site: Site, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence and exit code 1; of a folder that tar cannot read whole, nothing is imported."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    missing = podctl(server, "import", pod_id, str(tmp_path / "nowhere.tar"))
    assert (missing.returncode, b"No such file" in missing.stderr) == (1, True)

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("half of it\n")
    (tmp_path / "mine" / "elsewhere").symlink_to("nowhere")
    monkeypatch.setenv("TAR_OPTIONS", "--dereference")  # root reads all; what is not there nobody reads
    half = podctl(server, "import", pod_id, str(tmp_path / "mine"))
    assert (half.returncode, b"Not all of" in half.stderr) == (1, True), half.stderr

    # Its first archive: nothing was imported.
    put_away(site, pod_id, 1)
    nowhere = podctl(server, "download", pod_id, "--output", str(tmp_path / "no" / "folder"))
    assert (nowhere.returncode, b"Cannot write" in nowhere.stderr) == (1, True), nowhere.stderr
    (tmp_path / "mine.tar.part").write_text("somebody's own")
    (tmp_path / "link").symlink_to("mine.tar")
    there = podctl(server, "download", pod_id, "--output", str(tmp_path / "link"))
    assert (there.returncode, tarfile.is_tarfile(tmp_path / "mine.tar")) == (0, True), there.stderr
    assert [part.read_text() for part in tmp_path.glob("*.part")] == ["somebody's own"]


def test_a_download_that_breaks_in_the_middle_is_never_taken_for_whole(site: Site, server: ApiServer) -> None:
    """The sending node is killed: the reader's connection ends with an error, and podctl says so."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    site.run(pod_id, "head -c 60000000 /dev/urandom >/workspaces/large")
    put_away(site, pod_id, 1)
    headers = {"Authorization": f"Bearer {server.tokens['admin']}"}
    url = f"{server.url}/api/v1/pods/{pod_id}/download"
    with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        chunks = answer.iter_raw(1 << 16)
        next(chunks)
        for agent in site.agents:
            agent.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)


def test_only_its_own_key_and_node_open_a_stream(site: Site) -> None:
    """A key of somebody's own making reads nothing; a node without the chore sends nothing."""
    url = f"{site.reconciler.url}/v1/streams/01920000-0000-7000-8000-000000000000"
    read = httpx.get(url, headers={"X-Stream-Key": "mine"})
    assert (read.status_code, read.json()["code"]) == (403, "stream_refused")
    agent = site.agents[0]
    sent = httpx.put(
        url,
        params={"node": agent.node.node_id, "attempt": "1"},
        headers={"Authorization": f"Bearer token-of-{agent.node.node_id}"},
        content=b"x",
    )
    assert sent.status_code in (401, 409)
