"""The engine port: what the agent asks of a container engine, in plain values and a few verbs.

`docker_runtime.DockerRuntime` stands behind it. Verbs raise `errors.StepError` only; "already so" is success.
Nothing here does I/O.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

IDE_PORT = 8080  # where code-server listens inside a pod
WORKSPACES_DIR = "/workspaces"
SESSION_DIR = "/run/codepods"
GATE_FILE = "gate"
REMOVALS_FILE = "removals"
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
    # Of its first process, as this node numbers it; None while it does not run.
    pid: int | None = None

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
    """A container to be made. Restart policy is always `no` (LAW 14): only the agent starts pods.

    `gated`: while `GATE_FILE` is in its session directory, a start runs nothing of the image and only waits.
    """

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
    gated: bool = False


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


class ChangeKind(StrEnum):
    """What the engine says of a path, against the image."""

    MODIFIED = "modified"
    ADDED = "added"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class PathChange:
    """A path that is not as in the image. Absolute; bytes that are no UTF-8 are U+FFFD, as JSON has them."""

    kind: ChangeKind
    path: str


class PathType(StrEnum):
    """What lies at a path, links not followed."""

    FOLDER = "folder"
    SOCKET = "socket"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class OpenPath:
    """A path being read: what it is, and a tar of it and of all below, names beginning with its own."""

    type: PathType
    chunks: Iterator[bytes]


class EngineFiles(Protocol):
    """Files of stopped containers through the engine's public API. Raises `errors.StepError` only."""

    def changed_paths(self, container_id: str) -> tuple[PathChange, ...]:
        """All that differs from the image, unordered; what is mounted is not looked at."""
        ...

    def mounts_of(self, container_id: str) -> tuple[str, ...]:
        """Where something is mounted: reading and writing go through to it."""
        ...

    def open_path(self, container_id: str, path: str) -> AbstractContextManager[OpenPath]:
        """Read a path, what is mounted below it with it. Raises NotFound."""
        ...

    def type_of(self, container_id: str, path: str) -> PathType | None:
        """None where nothing is."""
        ...

    def write_tree(self, container_id: str, chunks: Iterable[bytes]) -> None:
        """Unpack a tar over the container's root; it adds and replaces, and deletes nothing."""

    def run_as_root(self, container_id: str, argv: Sequence[str]) -> tuple[int, str]:
        """Run a program in a started container: exit code, and the end of what it said."""
        ...

    def upper_dir(self, container: Container) -> str | None:
        """Where the container's changes lie on this machine's disk, if that can be found out."""
        ...

    def scratch_container(self) -> AbstractContextManager[str]:
        """The id of an empty container of our own, never started, removed at the end."""
        ...


class EngineImages(Protocol):
    """Whole images, in and out of the engine. Raises `errors.StepError` only."""

    def layers_of(self, image_id: str) -> tuple[str, ...]:
        """The digests of an image's unpacked layers, lowest first. Raises NotFound."""
        ...

    def chains(self) -> frozenset[tuple[str, ...]]:
        """Every stack of layers that the engine has, from the lowest up."""
        ...

    def save(self, image_id: str) -> AbstractContextManager[Iterator[bytes]]:
        """The image as `docker save` writes it."""
        ...

    def load(self, chunks: Iterable[bytes]) -> None:
        """Take in what `docker save` writes; layers of stacks that are there may be missing in it."""


class Runtime(Protocol):
    """A container engine. Only what carries this node's label is ever listed."""

    @property
    def images(self) -> EngineImages:
        """The way to whole images."""
        ...

    @property
    def files(self) -> EngineFiles:
        """The way to containers' files through the engine."""
        ...

    def facts(self) -> EngineFacts:
        """What the engine is; known from some seconds ago at most."""
        ...

    def look(self) -> Sight:
        """Every container (stopped ones too) and volume of this node."""
        ...

    def of_pod(self, pod_id: str, epoch: int | None = None) -> tuple[Container, ...]:
        """This node's containers of one pod, of any epoch or of one, half-made ones too."""
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

    def pull(self, reference: str, attend: Callable[[int, int | None], None]) -> None:
        """Fetch an image. `attend` is told of the bytes so far, and of how many, all the time: what it raises
        ends the pull. Raises ImageNotFound, PullTimeout."""

    def create(self, plan: ContainerPlan) -> Container:
        """Make a container; it is not started. Raises Conflict where the name is taken."""
        ...

    def rename(self, container_id: str, name: str) -> None:
        """Raises Conflict where the name is taken."""

    def start(self, container_id: str) -> None:
        """Start; running already is success."""

    def pause(self, container_id: str) -> None:
        """Hold all processes of a running container; paused already is success."""

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
