"""A node's machine: containers, disk, troubles, and what it does by itself. Its port is in docker.py."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from node_agent.errors import Conflict, DiskFull, EngineUnavailable, NotFound
from node_agent.labels import POD, is_partial
from node_agent.runtime import LIVE, Container, Status, Volume, VolumeState
from tests.sim.scheduler import Process, Scheduler
from tests.sim.trees import Tree, Trees

T = TypeVar("T")
EPOCH_START = datetime(2026, 3, 1, tzinfo=UTC)
NEVER = "0001-01-01T00:00:00Z"
IMAGE_ID = "sha256:" + "1" * 64
IDE_STARTS_S = 0.3
SLOW_S = 4.0
# No real process has such a number (PID_MAX_LIMIT of Linux is 4194304).
PIDS_BEGIN_AT = 5_000_000
# What needs room on the disk.
_WRITES = ("create", "create_volume", "rename")


def at(now_s: float) -> datetime:
    """The virtual clock as a date."""
    return EPOCH_START + timedelta(seconds=now_s)


@dataclass(eq=False)
class SimContainer:
    """A container, its changes with it."""

    id: str
    name: str
    labels: Mapping[str, str]
    volume: str
    session_dir: str
    host_port: int
    upper_dir: str
    tree: Tree
    status: Status = Status.CREATED
    started_at: str = NEVER
    finished_at: str = NEVER
    answers_at_s: float = 0.0
    made_at_s: float = 0.0

    @property
    def whole(self) -> bool:
        """Not one that is still being restored into."""
        return not is_partial(self.name)

    @property
    def pod_id(self) -> str:
        """By its label."""
        return self.labels.get(POD, "")

    def seen(self) -> Container:
        """As `docker inspect` shows it."""
        return Container(
            id=self.id,
            name=self.name,
            labels=self.labels,
            status=self.status,
            image_id=IMAGE_ID,
            started_at=self.started_at,
            finished_at=self.finished_at,
            exit_code=0,
            upper_dir=self.upper_dir,
            host_port=self.host_port if self.status in LIVE else None,
            volumes=(self.volume,),
            session_dir=self.session_dir,
            pid=PIDS_BEGIN_AT + self.host_port if self.status in LIVE else None,
        )


@dataclass(eq=False)
class SimVolume:
    """A volume, and the marker beside it."""

    name: str
    labels: Mapping[str, str]
    mountpoint: str
    tree: Tree
    marker: VolumeState | None = None

    def seen(self) -> Volume:
        """As `docker volume inspect` shows it."""
        return Volume(self.name, self.labels, self.mountpoint)


@dataclass(eq=False)
class SimMachine:
    """What a node has. `changed(what, machine, thing)` is called right before each effect that matters."""

    node_id: str
    scheduler: Scheduler
    trees: Trees
    changed: Callable[[str, Any, SimContainer | SimVolume], None]
    containers: dict[str, SimContainer] = field(default_factory=dict)
    volumes: dict[str, SimVolume] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    # In seconds, by container; and when the agent last noted that the gateway had answered.
    fences: dict[str, int] = field(default_factory=dict)
    contact_s: float = float("-inf")
    # Who is paused, as the agent has noted it; and how often somebody was.
    frozen: list[str] = field(default_factory=list)
    pauses: int = 0
    # Until when each trouble lasts.
    trouble: dict[str, float] = field(default_factory=dict)
    clock_skew: int = 0
    # The number of the agent's last run, on its disk; and which boot of which machine this is.
    boot_number: int = 0
    boots: int = 0
    # Its name in paths; and whether it is a copy that has another's name, beside that.
    disk: str = ""
    is_copy: bool = False
    cpu_millis: int = 8000
    # When it last left a container out of its list.
    lied_s: float = -1.0
    mutations: int = 0
    made: int = 0
    # When each actor last looked at all of it.
    looked_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.disk = self.disk or self.node_id

    def call(self, port: str, effect: Callable[[], T], *, mutates: bool = False, detail: str = "") -> T:
        """One request to the engine."""

        def reached() -> T:
            if self.has("engine_down"):
                raise EngineUnavailable("The engine does not answer.")
            if mutates and port in _WRITES and self.has("disk_full"):
                raise DiskFull("No space is left on the device.")
            return effect()

        if self.has("engine_slow"):
            self.scheduler.sleep(SLOW_S)

        return self.scheduler.call(
            f"docker.{port}", reached, EngineUnavailable, mutates=mutates, detail=detail
        )

    def has(self, trouble: str) -> bool:
        """Whether it is in this trouble now."""
        return self.scheduler.now_s < self.trouble.get(trouble, 0.0)

    # ---- by itself, or by hand -----------------------------------------------------------------------------

    @property
    def kernel_boot(self) -> str:
        """As `node_agent.boot` names it."""
        return f"{self.node_id.replace('-', '')}b{self.boots}"

    def reboot(self) -> None:
        """Every container exits; the restart policy `no` keeps them so."""
        self.contact_s = float("-inf")
        self.boots += 1
        for container in list(self.containers.values()):
            self.stop_now(container.id)

    def start_now(self, container_id: str) -> None:
        """Also by hand."""
        found = self._container(container_id)
        if found.status is Status.PAUSED:
            raise Conflict("The container is paused.")
        if found.status is Status.RUNNING:
            return
        found.status, found.started_at = Status.RUNNING, self._stamp()
        found.answers_at_s = self.scheduler.now_s + IDE_STARTS_S
        self._did("start", found)

    def stop_now(self, container_id: str) -> None:
        """Also by itself."""
        found = self._container(container_id)
        if found.status in LIVE:
            found.status, found.finished_at = Status.EXITED, self._stamp()
            self._did("stop", found)

    def doom(self, container_id: str) -> None:
        """In a crash loop, it exits soon after its start."""
        pod_id = self.containers[container_id].pod_id
        if not self.has(f"crash_loop {pod_id}"):
            return

        def body() -> None:
            self.scheduler.sleep(self.scheduler.random.uniform(0.05, 1.0))
            if container_id in self.containers:
                self.stop_now(container_id)

        self.scheduler.spawn(Process("doom"), "doom", body)

    def forget(self, container: SimContainer) -> None:
        """Removed by hand."""
        del self.containers[container.id]
        self.trees.drop(container.upper_dir)

    def wipe(self) -> None:
        """Another machine, under the same name."""
        for container in list(self.containers.values()):
            self.forget(container)
        for volume in self.volumes.values():
            self.trees.drop(volume.mountpoint)
        self.volumes.clear()
        self.sessions.clear()
        self.lose_data_dir()
        self.fences = {}
        self.boots += 1

    def lose_data_dir(self) -> None:
        """What its agent remembers of epochs, and of its own runs."""
        self.epochs.clear()
        self.boot_number = 0

    def _container(self, container_id: str) -> SimContainer:
        try:
            return self.containers[container_id]
        except KeyError:
            raise NotFound(f"There is no container {container_id}.") from None

    def _did(self, what: str, thing: SimContainer | SimVolume) -> None:
        self.mutations += 1
        self.changed(what, self, thing)

    def _stamp(self) -> str:
        self.made += 1
        return f"{at(self.scheduler.now_s):%Y-%m-%dT%H:%M:%S.%f}{self.made % 1000:03d}Z"
