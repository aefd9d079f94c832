"""The supervisor, with real processes."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compose.journal import Follower, Journal, Kind
from compose.processes import ProcessId, end_session, wait_until
from compose.supervisor import Program, Supervisor, rotate_logs

PATIENCE_S = 60.0

# A stand-in for nginx: a leader that has a worker, which outlives it when it is killed.
LEADER = """
import signal, subprocess, sys
worker = subprocess.Popen(["sleep", "600"])
open(sys.argv[1], "w").write(str(worker.pid))
signal.signal(signal.SIGTERM, lambda *_: (worker.kill(), sys.exit(0)))
print("up", flush=True)
worker.wait()
"""


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Program]:
    """A program with a worker; ended at the end, whatever the test did."""
    program = _program(tmp_path, "leader", (sys.executable, "-c", LEADER, str(tmp_path / "worker")))
    yield program
    known = ProcessId.read(program.pid_file)
    if known:
        end_session(known)


def _program(directory: Path, name: str, argv: tuple[str, ...]) -> Program:
    return Program(
        name, argv, os.environ, directory / f"{name}.log", directory / f"{name}.pid", stop_timeout_s=2.0
    )


def _worker_of(directory: Path) -> ProcessId:
    """The worker's process, once the leader has made it."""
    file = directory / "worker"
    assert wait_until(lambda: file.exists() and file.read_text() != "", PATIENCE_S)
    worker = ProcessId.of(int(file.read_text()))
    assert worker is not None
    return worker


def _look_until(supervisor: Supervisor, holds: Callable[[], bool]) -> bool:
    def look() -> bool:
        supervisor.look()
        return holds()

    return wait_until(look, PATIENCE_S)


def test_what_was_killed_is_started_again(tmp_path: Path, leader: Program) -> None:
    """After kill -9 a new process runs, the old one's worker is gone, and the journal tells both."""
    supervisor = Supervisor(Journal(tmp_path / "events.jsonl"))
    supervisor.start(leader)
    first, worker = ProcessId.read(leader.pid_file), _worker_of(tmp_path)
    assert first is not None

    os.kill(first.pid, signal.SIGKILL)

    assert _look_until(supervisor, lambda: ProcessId.read(leader.pid_file) not in (None, first))
    assert not worker.is_alive()
    kinds = [(entry["kind"], entry.get("how")) for entry in Follower(tmp_path / "events.jsonl").new()]
    assert kinds == [(Kind.STARTED, None), (Kind.ENDED, "was killed by SIGKILL"), (Kind.STARTED, None)]
    supervisor.stop_all()


def test_all_is_stopped_the_last_first(tmp_path: Path) -> None:
    """Programs that others need are stopped after those; one that does not listen is killed."""
    supervisor = Supervisor(Journal(tmp_path / "events.jsonl"))
    deaf = 'trap "" TERM; echo up; while :; do sleep 0.1; done'
    for name, argv in (("first", ("sleep", "600")), ("deaf", ("sh", "-c", deaf))):
        supervisor.start(_program(tmp_path, name, argv))
    ids = [ProcessId.read(tmp_path / f"{name}.pid") for name in ("first", "deaf")]
    assert wait_until(lambda: "up" in (tmp_path / "deaf.log").read_text(), PATIENCE_S)

    supervisor.stop_all()

    assert [one is not None and one.is_alive() for one in ids] == [False, False]
    told = [entry.get("text") for entry in Follower(tmp_path / "events.jsonl").new()][2:]
    assert told == ["stopping deaf", "stopping first"]
    assert not list(tmp_path.glob("*.pid"))


def test_one_that_cannot_start_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """A command that vanished is tried again later and later, while its neighbour is kept running."""
    command = tmp_path / "command"
    command.write_text("#!/bin/sh\nexit 3\n")
    command.chmod(0o755)
    supervisor = Supervisor(Journal(tmp_path / "events.jsonl"))
    supervisor.start(_program(tmp_path, "broken", (str(command),)))
    supervisor.start(_program(tmp_path, "well", ("sleep", "600")))
    command.unlink()
    follower, seen = Follower(tmp_path / "events.jsonl"), []

    def told_twice() -> bool:
        seen.extend(entry for entry in follower.new() if entry["kind"] == Kind.ENDED)
        return len(seen) >= 2

    assert _look_until(supervisor, told_twice)
    assert {entry["program"] for entry in seen} == {"broken"}
    assert seen[0]["again_in_s"] < seen[1]["again_in_s"]
    assert "exited with status 3" in seen[0]["how"]
    assert "could not be started" in seen[1]["how"]
    supervisor.stop_all()


def test_a_full_disk_ends_nobody(tmp_path: Path) -> None:
    """Where neither pid file nor journal can be written, programs are started, once, and kept."""
    journal = Journal(tmp_path / "events.jsonl")
    (tmp_path / "events.jsonl").unlink()
    (tmp_path / "events.jsonl").mkdir()
    program = Program("well", ("sleep", "600"), os.environ, tmp_path / "well.log", tmp_path / "none" / "pid")
    supervisor = Supervisor(journal)

    supervisor.start(program)
    supervisor.look()

    assert program.ended() is None
    supervisor.stop_all()


def test_programs_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    """Kill -9 of the supervisor leaves no orphans: the kernel tells its programs."""
    script = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from compose.journal import Journal
        from compose.supervisor import Program, Supervisor
        home = Path(sys.argv[1])
        supervisor = Supervisor(Journal(home / "events.jsonl"))
        argv = (sys.executable, "-c", sys.argv[2], str(home / "worker"))
        supervisor.start(Program("leader", argv, os.environ, home / "leader.log", home / "leader.pid"))
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path), LEADER]) as supervisor:
        try:
            worker = _worker_of(tmp_path)
            assert wait_until(lambda: "up" in (tmp_path / "leader.log").read_text(), PATIENCE_S)
            leader = ProcessId.read(tmp_path / "leader.pid")
        finally:
            supervisor.kill()

    assert leader is not None
    assert wait_until(lambda: not leader.is_alive() and not worker.is_alive(), PATIENCE_S)


def test_leftovers_are_found_by_their_session(tmp_path: Path, leader: Program) -> None:
    """A worker whose leader was killed is ended by what the pid file says; a stranger is not touched."""
    leader.start()
    worker, known = _worker_of(tmp_path), ProcessId.read(leader.pid_file)
    assert known is not None
    os.kill(known.pid, signal.SIGKILL)
    assert leader._process is not None
    leader._process.wait()
    assert worker.is_alive()

    assert end_session(known)

    assert not worker.is_alive()
    stranger = ProcessId(os.getpid(), start_time=1, boot=known.boot)
    assert not stranger.is_alive()
    assert stranger.session_members() == []


def test_logs_are_bounded(tmp_path: Path) -> None:
    """A log past the bound is moved aside and goes on empty; so many old ones are kept."""
    log = tmp_path / "api.log"
    for content in ("first", "second", "third", "fourth"):
        log.write_text(content)
        rotate_logs(tmp_path, bytes_max=3)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.log", "api.log.1", "api.log.2"]
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["", "fourth", "third"]


def test_a_follower_sees_each_entry_once(tmp_path: Path) -> None:
    """Also across a new run's new journal, and never half a line."""
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    assert list(follower.new()) == []
    journal = Journal(path)
    journal.tell(Kind.STEP, step="database", text="starting")
    assert [entry["step"] for entry in follower.new()] == ["database"]
    assert list(follower.new()) == []
    with path.open("a") as file:
        file.write('{"kind": "rea')
        file.flush()
        assert list(follower.new()) == []
        file.write('dy"}\n')
    assert [entry["kind"] for entry in follower.new()] == [Kind.READY]
