"""The engine port: what the agent asks of a container engine, in plain values and a few verbs.

`docker_runtime.DockerRuntime` stands behind it. Verbs raise `errors.StepError` only; "already so" is success.
Nothing here does I/O.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

IDE_PORT = 8080  # where code-server listens inside a pod
WORKSPACES_DIR = "/workspaces"
SESSION_DIR = "/run/codepods"
STOP_GRACE_S = 10  # code-server leaves within 1.4 s, also with a browser open (docs/bench.md)


class Status(StrEnum):
    """A container's state in the engine's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


LIVE = frozenset({Status.RUNNING, Status.PAUSED, Status.RESTARTING})
QUIET = frozenset({Status.CREATED, Status.EXITED})


class VolumeState(StrEnum):
    """Whether a volume may be used. `STRANGE` has files, and no word on whether they are all of them."""

    ABSENT = "absent"
    HALF = "half"
    WHOLE = "whole"
    STRANGE = "strange"


@dataclass(frozen=True, slots=True)
class Container:
    """One container as inspected. Times are the engine's own strings: part of the fingerprint."""

    id: str
    name: str
    labels: Mapping[str, str]
    status: Status
    image_id: str
    started_at: str
    finished_at: str
    exit_code: int | None = None
    oom_killed: bool = False
    upper_dir: str | None = None
    host_port: int | None = None
    volumes: tuple[str, ...] = ()
    session_dir: str | None = None

    @property
    def live(self) -> bool:
        """Its processes may write."""
        return self.status in LIVE

    @property
    def quiet(self) -> bool:
        """It has exited, or was never started: what it holds stays as it is."""
        return self.status in QUIET

    @property
    def fingerprint(self) -> str:
        """Says which container this is, and that it has not run since (LAW 8)."""
        return f"{self.id}|{self.started_at}|{self.finished_at}"


@dataclass(frozen=True, slots=True)
class Volume:
    """One workspace volume. `mountpoint` is its directory on the node."""

    name: str
    labels: Mapping[str, str]
    mountpoint: str


@dataclass(frozen=True, slots=True)
class Sight:
    """All containers and volumes of this node, looked at together."""

    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container to be made. Restart policy is always `no` (LAW 14): only the agent starts pods."""

    name: str
    image_id: str
    labels: Mapping[str, str]
    hostname: str
    volume: str
    session_dir: str
    network: str
    runtime: str
    publish_address: str
    cpu_millis: int
    memory_mib: int
    pids: int


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """The pods' own bridge, on which they cannot talk to each other."""

    name: str
    bridge: str
    mtu_bytes: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine says of itself and its machine."""

    engine_version: str
    api_version: str
    storage_driver: str
    runtimes: tuple[str, ...]
    cpu_millis: int
    memory_mib: int


class Runtime(Protocol):
    """A container engine. Only what carries this node's label is ever listed."""

    def facts(self) -> EngineFacts:
        """Asked of the engine now."""
        ...

    def look(self) -> Sight:
        """Every container (stopped ones too) and volume of this node."""
        ...

    def of_pod(self, pod_id: str) -> tuple[Container, ...]:
        """This node's containers of one pod, of any epoch, half-made ones too."""
        ...

    def inspect(self, container: str) -> Container | None:
        """By id or name; None where there is none."""
        ...

    def volume(self, name: str) -> Volume | None:
        """None where there is none."""
        ...

    def users_of(self, volume: str) -> tuple[Container, ...]:
        """All containers that mount the volume, anybody's, stopped ones too."""
        ...

    def image_id(self, reference: str) -> str | None:
        """The id of an image that is on the node, by reference or id."""
        ...

    def pull(self, reference: str) -> None:
        """Fetch an image. Raises ImageNotFound."""

    def create(self, plan: ContainerPlan) -> Container:
        """Make a container; it is not started. Raises Conflict where the name is taken."""
        ...

    def rename(self, container_id: str, name: str) -> None:
        """Raises Conflict where the name is taken."""

    def start(self, container_id: str) -> None:
        """Start; running already is success."""

    def unpause(self, container_id: str) -> None:
        """Let a paused container go on."""

    def stop(self, container_id: str, grace_s: int) -> None:
        """Ask to exit, kill after the grace; exited already is success."""

    def remove(self, container_id: str) -> None:
        """Remove a stopped container, never its volumes; gone already is success."""

    def create_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        """Make an empty volume."""
        ...

    def remove_volume(self, name: str) -> None:
        """Raises Conflict while a container mounts it; gone already is success."""

    def ensure_network(self, plan: NetworkPlan) -> None:
        """Make the bridge network where it is not there."""

    def attach(self, container_id: str, network: str) -> None:
        """Make a stopped container a member of a network that was made anew."""

    def last_lines(self, container_id: str, lines: int) -> str:
        """The end of the container's output, for error messages."""
        ...

    def changes(self) -> Iterator[None]:
        """One None for each change of a container of this node: only ever a hint to look sooner (LAW 1)."""
        ...

    def close(self) -> None:
        """Let go of connections, also of a blocked `changes`."""
