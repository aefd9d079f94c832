"""The simulation's engine keeps the contract of the real one: the same calls, the same answers and refusals.

After each call everything that carries the node's label is looked at, too. Ids, times and ports are each
engine's own: of them it is compared which is which, and whether there are any.
"""

import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from node_agent import labels
from node_agent.docker_runtime import DockerRuntime
from node_agent.errors import StepError
from node_agent.runtime import Container, ContainerPlan, Runtime, Volume
from tests.sim.docker import REFERENCE, SimDocker
from tests.sim.machine import IMAGE_ID, NEVER
from tests.sim.trees import Trees
from tests.sim.undisturbed import Undisturbed
from tests.support.vfs_engine import small_root

COMMAND = 'CMD ["sleep", "600"]'
NETWORK = "bridge"
GRACE_S = 1
NOBODYS = "f" * 64
# Nobody listens there: refused at once.
ELSEWHERE = "127.0.0.1:1/nothing:1"
# A verb of the port, and of what: containers are c0, c1, … in the order in which they were made.
Call = tuple[str, ...]


@dataclass
class Engine:
    """An engine with one node on it, and what was seen of it so far."""

    runtime: Runtime
    node_id: str
    session_dir: str
    reference: str
    image_id: str
    made: list[str] = field(default_factory=list)
    times: list[str] = field(default_factory=list)

    def outcome(self, call: Call) -> object:
        """What came of it, and what there is now."""
        verb, *arguments = call
        try:
            answer = self._told(CALLS[verb](self, *arguments))
        except StepError as error:
            answer = (type(error), error.code, error.permanent)
        sight = self.runtime.look()
        return answer, self._told(sight.containers), self._told(sight.volumes)

    def named(self, name: str) -> str:
        """A name that is nobody else's on a real engine."""
        return f"{self.node_id}-{name}"

    def container(self, handle: str) -> str:
        """Its id; of one that was never made, nobody's."""
        number = int(handle.removeprefix("c"))
        return self.made[number] if number < len(self.made) else NOBODYS

    def create(self, name: str, volume: str = "v", image: str = "") -> Container:
        """A pod's container; `name` says of which pod."""
        plan = ContainerPlan(
            name=self.named(name),
            image_id=image or self.image_id,
            labels={labels.NODE: self.node_id, labels.POD: name, labels.EPOCH: "1"},
            hostname="pod",
            volume=self.named(volume),
            session_dir=self.session_dir,
            network=NETWORK,
            runtime="runc",
            publish_address="127.0.0.1",
            cpu_millis=100,
            memory_mib=64,
            pids=50,
        )
        made = self.runtime.create(plan)
        self.made.append(made.id)
        return made

    def create_volume(self, name: str, owner: str = "") -> Volume:
        """Of this node, or of somebody else's."""
        return self.runtime.create_volume(self.named(name), {labels.NODE: owner or self.node_id})

    def _told(self, value: object) -> object:
        if isinstance(value, tuple):
            return sorted(map(self._told, value), key=str)
        if isinstance(value, Container):
            return self._container(value)
        if isinstance(value, Volume):
            return replace(
                value, name=self._plain(value.name), labels=self._labels(value), mountpoint="there"
            )
        return "the image" if value == self.image_id else value

    def _container(self, seen: Container) -> Container:
        return replace(
            seen,
            id=f"c{self.made.index(seen.id)}",
            name=self._plain(seen.name),
            labels=self._labels(seen),
            image_id=str(self._told(seen.image_id)),
            started_at=self._time(seen.started_at),
            finished_at=self._time(seen.finished_at),
            exit_code=None if seen.exit_code is None else 0,
            upper_dir=seen.upper_dir and "there",
            host_port=seen.host_port and 1,
            volumes=tuple(map(self._plain, seen.volumes)),
            pid=seen.pid and 1,
        )

    def _plain(self, name: str) -> str:
        return name.removeprefix(f"{self.node_id}-")

    def _labels(self, seen: Container | Volume) -> dict[str, str]:
        return {key: value.replace(self.node_id, "node") for key, value in seen.labels.items()}

    def _time(self, stamp: str) -> str:
        if stamp == NEVER:
            return "never"
        if stamp not in self.times:
            self.times.append(stamp)
        return f"t{self.times.index(stamp)}"


CALLS: dict[str, Callable[..., object]] = {
    "create": Engine.create,
    "create_volume": Engine.create_volume,
    "rename": lambda engine, c, name: engine.runtime.rename(engine.container(c), engine.named(name)),
    "start": lambda engine, c: engine.runtime.start(engine.container(c)),
    "pause": lambda engine, c: engine.runtime.pause(engine.container(c)),
    "unpause": lambda engine, c: engine.runtime.unpause(engine.container(c)),
    "stop": lambda engine, c: engine.runtime.stop(engine.container(c), GRACE_S),
    "remove": lambda engine, c: engine.runtime.remove(engine.container(c)),
    "inspect": lambda engine, c: engine.runtime.inspect(engine.container(c)),
    "inspect_name": lambda engine, name: engine.runtime.inspect(engine.named(name)),
    "attach": lambda engine, c: engine.runtime.attach(engine.container(c), NETWORK),
    "last_lines": lambda engine, c: engine.runtime.last_lines(engine.container(c), 5),
    "of_pod": lambda engine, name: engine.runtime.of_pod(name),
    "of_pod_at": lambda engine, name, epoch: engine.runtime.of_pod(name, int(epoch)),
    "volume": lambda engine, name: engine.runtime.volume(engine.named(name)),
    "users_of": lambda engine, name: engine.runtime.users_of(engine.named(name)),
    "remove_volume": lambda engine, name: engine.runtime.remove_volume(engine.named(name)),
    "image_id": lambda engine: engine.runtime.image_id(engine.reference),
    "image_of_id": lambda engine: engine.runtime.image_id(engine.image_id),
    "image_elsewhere": lambda engine: engine.runtime.image_id(ELSEWHERE),
    "pull_elsewhere": lambda engine: engine.runtime.pull(ELSEWHERE, lambda done, total: None),
}

STORIES: dict[str, list[Call]] = {
    "nothing is there": [
        *((verb, "c0") for verb in ("start", "stop", "pause", "unpause", "remove", "inspect", "attach")),
        ("rename", "c0", "a"),
        ("last_lines", "c0"),
        ("inspect_name", "a"),
        ("volume", "v"),
        ("users_of", "v"),
        ("of_pod", "a"),
        ("remove_volume", "v"),
    ],
    "a pod's life": [
        ("create_volume", "v"),
        ("create", "a"),
        ("inspect_name", "a"),
        ("attach", "c0"),
        ("start", "c0"),
        ("start", "c0"),
        ("attach", "c0"),
        ("inspect", "c0"),
        ("remove", "c0"),
        ("remove_volume", "v"),
        ("stop", "c0"),
        ("stop", "c0"),
        ("last_lines", "c0"),
        ("start", "c0"),
        ("stop", "c0"),
        ("remove", "c0"),
        ("remove", "c0"),
        ("inspect", "c0"),
        ("remove_volume", "v"),
        ("remove_volume", "v"),
    ],
    "names are taken": [
        ("create", "a"),
        ("create", "a", "w"),
        ("create", "b"),
        ("rename", "c1", "a"),
        ("rename", "c1", "b"),
        ("rename", "c1", "c"),
        ("create", "b"),
        ("of_pod", "b"),
        ("of_pod_at", "b", "1"),
        ("of_pod_at", "b", "11"),
        ("users_of", "v"),
        ("remove", "c0"),
        ("create", "a"),
    ],
    "paused": [
        ("create", "a"),
        ("pause", "c0"),
        ("unpause", "c0"),
        ("start", "c0"),
        ("unpause", "c0"),
        ("pause", "c0"),
        ("pause", "c0"),
        ("start", "c0"),
        ("remove", "c0"),
        ("unpause", "c0"),
        ("pause", "c0"),
        ("stop", "c0"),
        ("inspect", "c0"),
    ],
    "volumes": [
        ("create_volume", "v"),
        ("create_volume", "v", "somebody"),
        ("create_volume", "w", "somebody"),
        ("volume", "w"),
        ("create", "a", "x"),
        ("volume", "x"),
        ("remove_volume", "x"),
        ("remove", "c0"),
        ("remove_volume", "x"),
        ("remove_volume", "w"),
    ],
    "images": [
        ("image_id",),
        ("image_of_id",),
        ("image_elsewhere",),
        ("pull_elsewhere",),
        ("create", "a", "v", f"sha256:{NOBODYS}"),
        ("volume", "v"),
    ],
}

handles = st.sampled_from(("c0", "c0", "c1"))
names = st.sampled_from(("a", "b"))
volumes = st.sampled_from(("v", "w"))
calls = st.one_of(
    st.tuples(st.just("create"), names, volumes),
    st.tuples(st.just("rename"), handles, names),
    st.tuples(
        st.sampled_from(("start", "start", "pause", "unpause", "stop", "remove", "attach", "inspect")),
        handles,
    ),
    st.tuples(st.sampled_from(("inspect_name", "of_pod")), names),
    st.tuples(st.sampled_from(("create_volume", "remove_volume", "users_of")), volumes),
)


@dataclass
class Image:
    """An image with little in it, under a name of its own."""

    reference: str
    id: str


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """On the machine's engine, for as long as the module lasts."""
    reference = f"codepods-contract:{secrets.token_hex(4)}"
    argv = ["docker", "import", "--change", COMMAND, "-", reference]
    made = subprocess.run(argv, input=small_root(), capture_output=True, check=True, timeout=120)
    yield Image(reference, made.stdout.decode().strip())
    subprocess.run(["docker", "rmi", reference], capture_output=True, check=True, timeout=60)


def _real(image: Image, folder: Path) -> Engine:
    node_id = f"contract-{secrets.token_hex(4)}"
    return Engine(DockerRuntime(node_id), node_id, str(folder), image.reference, image.id)


def _simulated(folder: Path) -> Engine:
    scheduler = Undisturbed(0)
    docker = SimDocker("node-0", scheduler, Trees(scheduler), lambda _what, _docker, _thing: None)
    return Engine(docker, "node-0", str(folder), REFERENCE, IMAGE_ID)


def _clear_away(engine: Engine) -> None:
    engine.runtime.close()
    for container in engine.made:
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=False, timeout=60)
    listing = ["docker", "volume", "ls", "-q", "--filter", f"name=^{engine.node_id}"]
    found = subprocess.run(listing, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    if found:
        subprocess.run(["docker", "volume", "rm", *found], capture_output=True, check=True, timeout=60)


def _compare(image: Image, folder: Path, sequence: list[Any]) -> None:
    real, simulated = _real(image, folder), _simulated(folder)
    try:
        for call in sequence:
            assert simulated.outcome(call) == real.outcome(call), call
    finally:
        _clear_away(real)


@pytest.mark.parametrize("story", STORIES)
def test_the_simulated_engine_and_docker_tell_the_same_story(
    image: Image, tmp_path: Path, story: str
) -> None:
    """What is refused, and how; what is success because it is so already; what is there afterwards."""
    _compare(image, tmp_path, STORIES[story])


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sequence=st.lists(calls, min_size=8, max_size=14))
def test_the_simulated_engine_and_docker_do_the_same(
    image: Image, tmp_path: Path, sequence: list[Call]
) -> None:
    """Containers and volumes, in any order."""
    _compare(image, tmp_path, [("create", "a", "v"), ("start", "c0"), *sequence])
