"""Who is in a real pod, seen from its node: connections, its heart, work, and what an editor says."""

import dataclasses
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node_agent.editor_files import SILENT_AFTER_S
from node_agent.ready_memory import ReadyMemory
from node_agent.runtime import IDE_PORT, Container
from node_agent.watch import PresenceWatch
from state.presence_wire import PodPresence, PodWarning, PresenceDown
from tests.support.docker_node import ONE, DockerNode
from tests.support.patience import until

PATIENCE_S = 60


class Watched:
    """A running pod and the watch over it."""

    def __init__(self, node: DockerNode) -> None:
        self.node = node
        self.container: Container = node.running_pod(ONE)
        self.watch = PresenceWatch(node.parts, lambda: None)
        self.watch.show(node.parts.runtime.look())

    def look(self) -> PodPresence:
        """What there is to tell after a look: of a new start only after some seconds of looks."""
        deadline = time.monotonic() + PATIENCE_S
        self.watch.take(PresenceDown(look_at=(ONE,)))
        while (told := self.watch.tell()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.5)
            self.watch.take(PresenceDown(look_at=(ONE,)))
        return told.pods[0]

    def until(self, holds: Callable[[PodPresence], bool]) -> PodPresence:
        """Look until it is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds(said := self.look()):
            assert time.monotonic() < deadline, said
            time.sleep(0.5)
        return said

    def until_connected(self, count: int) -> PodPresence:
        """Look until there are so many connections from outside."""
        return self.until(lambda said: said.connections == count)

    def established(self) -> list[str]:
        """All connections to the IDE's port, as the kernel tells of them."""
        table = Path(f"/proc/{self.container.pid}/net/tcp").read_text().splitlines()
        return [line for line in table if f":{IDE_PORT:04X} " in line and line.split()[3] == "01"]

    def say(self, content: str, name: str = "1.json") -> None:
        """Write as the extension does."""
        self.node.run(
            ONE, f"mkdir -p /dev/shm/codepods; cat >/dev/shm/codepods/{name} <<'END'\n{content}\nEND"
        )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One pod for the module."""
    node = DockerNode(tmp_path_factory.mktemp("presence"), start_timeout_s_max=120.0)
    try:
        yield Watched(node)
    finally:
        node.clean_up()


def word(age_s: float = 0.0, active_age_s: float = 1.0, **more: object) -> str:
    """What a window says."""
    now_ms = time.time() * 1000
    return json.dumps({"at_ms": now_ms - age_s * 1000, "active_at_ms": now_ms - active_age_s * 1000, **more})


def test_connections_from_outside_are_counted_and_our_own_looks_are_not(watched: Watched) -> None:
    """A tab's socket counts while it is open; looks make none, and what the pod asks of itself counts not."""
    own = "exec 3<>/dev/tcp/127.0.0.1/8080; sleep 40"
    watched.node.run(ONE, f"timeout 40 bash -c '{own}' </dev/null >/dev/null 2>&1 &")
    until(watched.established, else_="the pod does not reach itself")
    watched.until_connected(0)
    with socket.create_connection(("127.0.0.1", watched.container.host_port or 0)):
        there = watched.until_connected(1)
        assert there.gone_for_s is None
        assert len(watched.established()) > 1
    gone = watched.until_connected(0)

    assert gone.gone_for_s is not None
    assert gone.connected_for_s is None


def test_a_pod_is_not_looked_at_before_its_ide_has_answered(watched: Watched) -> None:
    """Regression: the agent's own knocking at a starting pod was taken for a visit that has ended."""
    parts = watched.node.parts
    watch = PresenceWatch(dataclasses.replace(parts, ready=ReadyMemory()), lambda: None)
    watch.show(parts.runtime.look())

    assert watch.look() is False
    assert watch.tell() is None


def test_the_heart_is_read_without_keeping_it_going(watched: Watched) -> None:
    """The age of code-server's heartbeat grows from look to look: reading it is no use of the pod."""
    first = watched.look().heartbeat_age_s
    time.sleep(1)
    second = watched.look().heartbeat_age_s

    assert first is not None
    assert second is not None
    assert second > first


def test_work_is_seen_while_it_goes_on_and_remembered_after(watched: Watched) -> None:
    """A process that computes makes the pod busy; when it has ended the age of the work grows."""
    watched.node.run(ONE, "timeout 12 sh -c 'while :; do :; done' >/dev/null 2>&1 &")
    at_work = watched.until(lambda said: said.busy_age_s == 0)
    assert "CPU" in at_work.busy_with

    after = watched.until(lambda said: said.busy_age_s is not None and said.busy_age_s > 0)
    assert after.busy_with


def test_an_editor_says_what_only_it_knows(watched: Watched) -> None:
    """The newest touch of all windows, a task that runs, an answer; a window that fell silent counts not."""
    watched.say(word(active_age_s=500), "1.json")
    watched.say(word(active_age_s=30, tasks=1, keep="w-1"), "2.json")
    watched.say(word(age_s=SILENT_AFTER_S + 5, active_age_s=0), "3.json")
    said = watched.look()

    assert said.active_age_s is not None
    assert 29 <= said.active_age_s < 60
    assert said.busy_with == "a task in the editor"
    assert said.keep == "w-1"
    watched.node.run(ONE, "rm -r /dev/shm/codepods")
    assert watched.look().active_age_s is None


# A look that waits for a pipe would wait for ever.
@pytest.mark.timeout(100)
@pytest.mark.parametrize(
    "script",
    [
        "mkdir -p /dev/shm/codepods; ln -s /etc/hostname /dev/shm/codepods/link.json",
        "mkdir -p /dev/shm/codepods; mkfifo /dev/shm/codepods/pipe.json",
        "mkdir -p /dev/shm/codepods; head -c 1000000 /dev/zero >/dev/shm/codepods/big.json",
        "mkdir -p /dev/shm/codepods; echo '{\"at_ms\": 1e999}' >/dev/shm/codepods/odd.json",
        "mkdir -p /dev/shm/codepods; for n in $(seq 500); do echo {} >/dev/shm/codepods/$n.json; done",
        "ln -s / /dev/shm/codepods",
        "echo file >/dev/shm/codepods",
    ],
)
def test_a_strangers_files_harm_nobody(watched: Watched, script: str) -> None:
    """Links, pipes, floods, nonsense: looked at without waiting, following or believing."""
    watched.node.run(ONE, f"rm -rf /dev/shm/codepods; {script}")
    try:
        assert watched.look().active_age_s is None
    finally:
        watched.node.run(ONE, "rm -rf /dev/shm/codepods")


def test_a_warning_reaches_the_pod_which_cannot_change_it(watched: Watched) -> None:
    """The extension reads it beside the session secret; it is gone when the warning is."""
    warning = PodWarning(pod_id=ONE, epoch=1, id="w-2", stops_in_s=300, why="a tab is open")
    watched.watch.take(PresenceDown(warnings=(warning,)))
    read = json.loads(watched.node.run(ONE, "cat /run/codepods/warning.json"))

    assert (read["id"], read["why"], read["can_extend"]) == ("w-2", "a tab is open", True)
    assert abs(read["stops_at_ms"] / 1000 - time.time() - 300) < 60
    assert watched.node.run(ONE, "rm -f /run/codepods/warning.json; ls /run/codepods").split() == [
        "session",
        "warning.json",
    ]
    watched.watch.take(PresenceDown(warnings=()))
    assert watched.node.run(ONE, "ls /run/codepods").split() == ["session"]


def test_a_look_reads_the_second_version_of_cgroups(tmp_path: Path) -> None:
    """Where the machine has version 2 the same is counted from cpu.stat; this machine has one of the two."""
    from node_agent.proc import cgroup_of

    proc, groups, container = tmp_path / "proc", tmp_path / "cgroup", "c" * 64
    (proc / "7").mkdir(parents=True)
    (proc / "7" / "cgroup").write_text(f"0::/system.slice/docker-{container}.scope/init\n")
    scope = groups / "system.slice" / f"docker-{container}.scope"
    (scope / "init").mkdir(parents=True)
    (scope / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")
    (scope / "init" / "cgroup.procs").write_text("7\n8\n")
    found = cgroup_of(7, container, proc, groups)

    assert found is not None
    assert found.cpu_ns() == 1_500_000_000
    assert found.processes() == [7, 8]


@pytest.mark.parametrize("line", ["0::/", "2:cpuacct:/", "0::/system.slice/docker.service"])
def test_a_process_that_ends_is_not_counted_as_the_whole_machine(tmp_path: Path, line: str) -> None:
    """Regression: what ends is counted at the root, and the machine's CPU time was taken for the pod's."""
    from node_agent.proc import cgroup_of

    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(f"{line}\n")

    assert cgroup_of(7, "c" * 64, tmp_path, tmp_path) is None


def test_jobs_in_the_foreground_of_a_terminal_are_told_from_shells(watched: Watched) -> None:
    """A shell at its prompt is no job; what it runs in the foreground is."""
    from node_agent.proc import processes

    pid, terminal = os.forkpty()
    if pid == 0:
        os.execvp("bash", ["bash", "--norc"])
    try:
        deadline = time.monotonic() + PATIENCE_S
        assert processes([pid]).jobs == 0
        os.write(terminal, b"sleep 30\n")
        children = Path(f"/proc/{pid}/task/{pid}/children")
        while (
            not (jobs := [int(child) for child in children.read_text().split()]) or not processes(jobs).jobs
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert processes([pid, *jobs]).jobs == 1
    finally:
        os.kill(pid, 9)
        os.close(terminal)
        os.waitpid(pid, 0)
