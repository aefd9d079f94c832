"""The supervisor of these tests against the tests themselves: one agent of a node, whoever starts it."""

import subprocess
import time
from pathlib import Path
from typing import IO, ClassVar

from tests.chaos.revival import disarm, revived
from tests.support.agent_process import AgentProcess
from tests.support.docker_node import DockerNode

TURNS = 5
BEGINNING_S = 0.1


class SlowToBegin(AgentProcess):
    """A stand-in for the program, so that two who start it meet each time."""

    begun: ClassVar[list[subprocess.Popen[bytes]]] = []

    def _begin(self, log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        time.sleep(BEGINNING_S)
        self.begun.append(subprocess.Popen(["sleep", "600"], stderr=log, env=environment))
        return self.begun[-1]

    def alive(self) -> list[subprocess.Popen[bytes]]:
        """Those that have not ended."""
        return [process for process in self.begun if process.poll() is None]


def test_a_test_and_the_supervisor_never_start_the_same_agent_twice(tmp_path: Path) -> None:
    """An agent dies by itself just when the test begins it anew."""
    node = DockerNode(tmp_path / "node", store_dir=tmp_path / "store")
    agent = SlowToBegin(node, "http://127.0.0.1:1", "token", tmp_path / "log")
    agent.start()
    try:
        with revived([agent]):
            for _ in range(TURNS):
                (alive,) = agent.alive()
                alive.kill()
                alive.wait()
                time.sleep(BEGINNING_S)
                disarm([agent])
                assert len(agent.alive()) == 1
    finally:
        for process in agent.alive():
            process.kill()
            process.wait()
        node.clean_up()
