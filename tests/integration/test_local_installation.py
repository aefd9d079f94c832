"""A whole installation on this machine: up, down, killed, cleaned, and what is said when it cannot be."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from compose.processes import ProcessId, wait_until
from node_agent.docker_files import SCRATCH_LABEL, DockerFiles
from node_agent.firewall import rules_for
from state.embedded import EmbeddedPostgres
from tests.support.local_installation import PODCTL, LocalInstallation, local_installation
from tests.support.small_images import run

PATIENCE_S = 60.0
LINK = re.compile(r"https://localhost:\d+/pods/p-[a-z2-7]{12}/\?tkn=\S+")
PROGRAMS = ("api", "reconciler", "nginx", "postgres")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalInstallation]:
    """One that is up with one node, for all tests here."""
    with local_installation(tmp_path_factory.mktemp("local") / "home", nodes=1) as made:
        yield made


def _process(home: Path, program: str) -> ProcessId | None:
    return ProcessId.read(home / "run" / f"{program}.pid")


def _living(home: Path) -> list[str]:
    """The programs of this home that run."""
    known = {file.stem: ProcessId.read(file) for file in (home / "run").glob("*.pid")}
    return sorted(name for name, process in known.items() if process and process.is_alive())


def _agent(installation: LocalInstallation) -> str:
    node: str = json.loads((installation.home / "config.json").read_text())["nodes"][0]["id"]
    return node


def _networks() -> list[str]:
    listed = ("docker", "network", "ls", "--format", "{{.Name}}")
    return subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()


def _firewall() -> str:
    """The rules of both kinds of iptables: an engine uses one of them."""
    savers = [name for name in ("iptables-nft-save", "iptables-legacy-save") if shutil.which(name)]
    return "".join(
        subprocess.run((name,), check=True, capture_output=True, text=True).stdout for name in savers
    )


def test_a_second_up_says_so_and_prints_a_fresh_link(installation: LocalInstallation) -> None:
    """Links open for minutes: who comes later runs it again, and nothing is started twice."""
    supervisor = _process(installation.home, "supervisor")

    shown = [installation.run("up", "--detach").stdout for _ in range(2)]
    links = [LINK.search(one) for one in shown]

    assert all("The link opens for 5 minutes" in one for one in shown)
    assert None not in links
    assert len({link[0] for link in links if link}) == 2
    assert _process(installation.home, "supervisor") == supervisor


def test_every_killed_program_is_back(installation: LocalInstallation) -> None:
    """Kill -9 of all of them at once: each gets a new process, and the API answers again."""
    programs = (*PROGRAMS, _agent(installation))
    before = {program: _process(installation.home, program) for program in programs}

    for process in before.values():
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)

    def all_back() -> bool:
        now = {program: _process(installation.home, program) for program in programs}
        return all(now[p] and now[p] != before[p] and now[p].is_alive() for p in programs)  # type: ignore[union-attr]

    assert wait_until(all_back, PATIENCE_S)
    assert wait_until(lambda: installation.run("list", check=False).returncode == 0, PATIENCE_S)


def test_down_stops_the_pods_and_up_brings_the_same_ones_back(installation: LocalInstallation) -> None:
    """The containers are kept, with their ids: nothing that a learner had is made anew."""
    pod_id = installation.open("ada")["pod_id"]
    [before] = installation.containers(pod_id)

    installation.run("down")

    [stopped] = installation.containers(pod_id)
    assert (stopped["Id"], stopped["State"]["Running"]) == (before["Id"], False)
    assert _living(installation.home) == []

    installation.up()
    installation.open("ada")
    [after] = installation.containers(pod_id)
    assert (after["Id"], after["State"]["Running"]) == (before["Id"], True)


def test_up_replaces_what_a_killed_supervisor_left(installation: LocalInstallation) -> None:
    """Its programs end with it; PostgreSQL and the pods go on, and a later `up` finds them."""
    supervisor = _process(installation.home, "supervisor")
    assert supervisor is not None

    os.kill(supervisor.pid, signal.SIGKILL)

    assert wait_until(lambda: _living(installation.home) in ([], ["postgres"]), PATIENCE_S)
    installation.up()
    assert _process(installation.home, "supervisor") != supervisor
    assert set(PROGRAMS) <= set(_living(installation.home))


def test_people_in_psql_are_admins(installation: LocalInstallation) -> None:
    """`make psql` is the role codepods_admin: it reads what is, and sees no secret."""
    assert installation.psql("SELECT current_user").stdout.strip() == "codepods_admin"
    assert installation.psql("SELECT count(*) FROM node_status").stdout.strip() == "1"
    assert installation.psql("SELECT session_secret FROM public.pod_observed", check=False).returncode != 0


def test_status_names_programs_ports_pods_and_alarms(installation: LocalInstallation) -> None:
    """One look tells what runs where."""
    shown = installation.run("status").stdout

    for word in (
        *PROGRAMS,
        _agent(installation),
        installation.environment["CODEPODS_API_PORT"],
        "No alarms.",
    ):
        assert word in shown


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    """One line: the port, who has it, the setting that moves ours; nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        refused = LocalInstallation(tmp_path / "home", 1)
        refused.environment["CODEPODS_GATEWAY_PORT"] = port

        result = refused.run("up", "--detach", check=False)

    assert result.returncode == 1
    said = result.stderr.strip()
    assert len(said.splitlines()) == 1
    for words in (f"Port {port} is taken by ", f"(pid {os.getpid()})", "CODEPODS_GATEWAY_PORT="):
        assert words in said
    assert not (tmp_path / "home").exists()


def test_a_start_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    """The reason is told, and what was started for it is ended again."""
    refused = LocalInstallation(tmp_path / "home", 1, {"CODEPODS_STORE_URL": "ftp://nowhere"})

    result = refused.run("up", "--detach", check=False)

    assert result.returncode == 1
    assert "CODEPODS_STORE_URL" in result.stderr
    assert _living(tmp_path / "home") == []
    refused.run("clean", "--yes")


def test_clean_removes_ours_and_nothing_else(tmp_path: Path) -> None:
    """A neighbour's container stays, and so does a stranger's file in the home."""
    neighbours = subprocess.run(
        ("docker", "create", "--label", "codepods.node=node-1-ffffff", "debian:bookworm-slim", "true"),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    try:
        with local_installation(tmp_path / "home", nodes=1) as installation:
            pod_id = installation.open("bob")["pod_id"]
            (installation.home / "notes.txt").write_text("mine")

            refused = subprocess.run(
                (str(PODCTL), "clean"), env=installation.environment, stdin=subprocess.DEVNULL, check=False
            )
            assert refused.returncode == 1
            assert installation.containers(pod_id)

            node = _agent(installation)
            assert f"codepods-{node}" in _networks()
            assert rules_for(node, (), ()).chain in _firewall()
            # An agent that was killed while it tried the engine.
            killed = DockerFiles(node, docker.APIClient).scratch_container()
            killed.__enter__()

            installation.run("clean", "--yes")

            assert installation.containers(pod_id) == []
            assert f"codepods-{node}" not in _networks()
            assert rules_for(node, (), ()).chain not in _firewall()
            assert installation.volumes("bob") == []
            for listing in (["ps", "-aq"], ["images", "-q"]):
                assert run(*listing, "--filter", f"label={SCRATCH_LABEL}={node}") == ""
            assert [path.name for path in installation.home.iterdir()] == ["notes.txt"]
            shutil.rmtree(installation.home.resolve())
        shown = subprocess.run(("docker", "inspect", neighbours), check=False, capture_output=True)
        assert shown.returncode == 0
    finally:
        subprocess.run(("docker", "rm", "-f", neighbours), check=True, capture_output=True)


def test_the_operators_own_postgres_is_used(tmp_path: Path) -> None:
    """With `CODEPODS_DATABASE_URL` no embedded one is made."""
    # Not below pytest's own directory, which is closed to the server's user.
    own = Path(tempfile.mkdtemp(prefix="codepods-own-"))
    own.chmod(0o755)
    server = EmbeddedPostgres(own, durable=False)
    server.start()
    try:
        with local_installation(tmp_path / "home", nodes=1, CODEPODS_DATABASE_URL=server.superuser_url) as up:
            assert not any((up.home / "postgres").glob("*"))
            assert up.psql("SELECT current_user").stdout.strip() == "codepods_admin"
    finally:
        server.stop()
        shutil.rmtree(own)
