"""The engine port on Docker. Only the `docker_*` modules know the docker SDK.

The API version is negotiated: Debian's 20.10 speaks 1.41, Docker 29 wants at least 1.44.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import docker
import docker.errors
import docker.utils
from docker.types import IPAMConfig, LogConfig, Mount

from node_agent import docker_pulls, docker_reading, labels
from node_agent.docker_errors import translated
from node_agent.docker_files import DockerFiles
from node_agent.docker_images import DockerImages
from node_agent.docker_pulls import Attend, PullBounds, PullClient
from node_agent.docker_version import check_api_version
from node_agent.errors import Conflict, EngineRefused, EngineUnavailable, NotFound, StepError, StopIgnored
from node_agent.runtime import (
    IDE_PORT,
    SESSION_DIR,
    WORKSPACES_DIR,
    Container,
    ContainerPlan,
    EngineFacts,
    NetworkPlan,
    Sight,
    Status,
    Volume,
)

CALL_TIMEOUT_S = 60
# Each step asks what the engine runs containers under: 7 to 30 ms a time, on the way to somebody's page. An
# engine that no longer has it refuses the container itself.
FACTS_TRUSTED_S = 60.0
# Whole trees through the engine: comparing with the image, or unpacking, says nothing for a while.
TRANSFER_TIMEOUT_S = 900
CONNECTIONS_MAX = 32
PULL_BOUNDS = PullBounds(silence_s_max=120.0, total_s_max=3600.0)
LOG_FILE_MIB_MAX = 2
LOG_FILES_MAX = 2
MIB = 1 << 20
HTTP_CONFLICT = 409
# Not `exec_…`: those say nothing about a container's state, and come with every command run in it.
_LIFE_EVENTS = {
    "type": ["container"],
    "event": ["create", "start", "die", "oom", "pause", "unpause", "rename", "destroy"],
}

C = TypeVar("C", bound=docker.APIClient)


class DockerRuntime:
    """The containers and volumes of one node, in the engine at `base_url` (None: from the environment)."""

    def __init__(
        self, node_id: str, base_url: str | None = None, pull_bounds: PullBounds = PULL_BOUNDS
    ) -> None:
        self._node_id = node_id
        self._pull_bounds = pull_bounds
        self._base_url = base_url
        self._lock = threading.Lock()
        self._connected: docker.APIClient | None = None
        self._transferring: docker.APIClient | None = None
        self._events: Any = None
        self._closed = False
        self._facts: tuple[float, EngineFacts] | None = None

    def facts(self) -> EngineFacts:
        """What the engine is."""
        now_s, known = time.monotonic(), self._facts
        if known is not None and now_s - known[0] < FACTS_TRUSTED_S:
            return known[1]
        with translated("ask the engine what it is"):
            client = self._client()
            found = docker_reading.facts(client.info(), client.api_version)
        self._facts = (now_s, found)
        return found

    @property
    def files(self) -> DockerFiles:
        """Containers' files through the API."""
        return DockerFiles(self._node_id, self._transfer_client)

    @property
    def images(self) -> DockerImages:
        """Whole images."""
        return DockerImages(self._transfer_client)

    def look(self) -> Sight:
        """All containers and volumes with this node's label."""
        with translated("list the containers and volumes"):
            volumes = self._client().volumes(filters=self._mine())["Volumes"] or ()
        return Sight(self._containers(self._mine()), tuple(map(docker_reading.volume, volumes)))

    def of_pod(self, pod_id: str, epoch: int | None = None) -> tuple[Container, ...]:
        """The containers with this node's and the pod's label, and the epoch's."""
        of_epoch = () if epoch is None else (f"{labels.EPOCH}={epoch}",)
        return self._containers(self._mine(f"{labels.POD}={pod_id}", *of_epoch))

    def _mine(self, *more: str) -> dict[str, Any]:
        return {"label": [f"{labels.NODE}={self._node_id}", *more]}

    def _containers(self, filters: dict[str, Any]) -> tuple[Container, ...]:
        with translated("list containers"):
            ids = [found["Id"] for found in self._client().containers(all=True, filters=filters)]
        inspected = (self.inspect(container_id) for container_id in ids)
        return tuple(container for container in inspected if container is not None)

    def inspect(self, container: str) -> Container | None:
        """One container, or None."""
        try:
            with translated(f"inspect container {container[:80]}"):
                return docker_reading.container(self._client().inspect_container(container))
        except NotFound:
            return None

    def volume(self, name: str) -> Volume | None:
        """One volume, or None."""
        try:
            with translated(f"inspect volume {name}"):
                return docker_reading.volume(self._client().inspect_volume(name))
        except NotFound:
            return None

    def users_of(self, volume: str) -> tuple[Container, ...]:
        """All containers that mount the volume."""
        # The engine's filter matches parts of names as well.
        return tuple(user for user in self._containers({"volume": volume}) if volume in user.volumes)

    def image_id(self, reference: str) -> str | None:
        """The id of an image that is on the node."""
        try:
            with translated(f"inspect image {reference!r}"):
                return str(self._image(reference)["Id"])
        except NotFound:
            return None

    def _image(self, reference: str) -> dict[str, Any]:
        found: dict[str, Any] = self._client().inspect_image(reference)  # type: ignore[no-untyped-call]
        return found

    def pull(self, reference: str, attend: Attend) -> None:
        """Fetch an image from its registry, within bounds."""
        with self._lock:
            self._check_open()
            client = self._connected_as(PullClient, CALL_TIMEOUT_S)
        docker_pulls.pull(client, reference, self._pull_bounds, attend)

    def create(self, plan: ContainerPlan) -> Container:
        """Make a container from the image id, with its limits, and leave it stopped."""
        with translated(f"create container {plan.name}"):
            gate = docker_reading.gate(self._image(plan.image_id)) if plan.gated else {}
            made = self._client().create_container(
                **gate,
                image=plan.image_id,
                name=plan.name,
                hostname=plan.hostname,
                labels=dict(plan.labels),
                ports=[IDE_PORT],
                host_config=self._host_config(plan),
            )
        found = self.inspect(made["Id"])
        if found is None:
            raise NotFound(f"Container {plan.name} was removed right after it was made. It is tried again.")
        return found

    def _host_config(self, plan: ContainerPlan) -> dict[str, Any]:
        memory_bytes = plan.memory_mib * MIB
        config: dict[str, Any] = self._client().create_host_config(
            init=True,
            restart_policy={"Name": "no"},
            runtime=plan.runtime,
            nano_cpus=plan.cpu_millis * 1_000_000,
            mem_limit=memory_bytes,
            memswap_limit=memory_bytes,
            pids_limit=plan.pids,
            network_mode=plan.network,
            port_bindings={IDE_PORT: (plan.publish_address, None)},
            log_config=LogConfig(
                type="json-file", config={"max-size": f"{LOG_FILE_MIB_MAX}m", "max-file": str(LOG_FILES_MAX)}
            ),
            mounts=[
                Mount(WORKSPACES_DIR, plan.volume, type="volume", no_copy=True),
                Mount(SESSION_DIR, plan.session_dir, type="bind", read_only=True),
            ],
        )
        return config

    def rename(self, container_id: str, name: str) -> None:
        """Give a container its name."""
        with translated(f"rename container {container_id[:12]} to {name}"):
            self._client().rename(container_id, name)

    def start(self, container_id: str) -> None:
        """Start a container."""
        with translated(f"start container {container_id[:12]}"):
            self._client().start(container_id)

    def pause(self, container_id: str) -> None:
        """Hold a container; the engine itself refuses one that is paused."""
        try:
            with translated(f"pause container {container_id[:12]}"):
                self._client().pause(container_id)
        except Conflict:
            found = self.inspect(container_id)
            if found is None or found.status is not Status.PAUSED:
                raise

    def unpause(self, container_id: str) -> None:
        """Let a paused container go on."""
        with translated(f"unpause container {container_id[:12]}"):
            self._client().unpause(container_id)

    def stop(self, container_id: str, grace_s: int) -> None:
        """Stop a container; killed after the grace. Raises StopIgnored where not even that ends it."""
        try:
            with translated(f"stop container {container_id[:12]}"):
                self._client().stop(container_id, timeout=grace_s)
        except (EngineUnavailable, EngineRefused) as error:
            found = self.inspect(container_id)
            if found is not None and found.live:
                raise _ignored(container_id, error) from error

    def remove(self, container_id: str) -> None:
        """Remove a stopped container; the engine itself refuses a running one."""
        try:
            with translated(f"remove container {container_id[:12]}"):
                self._client().remove_container(container_id, v=False, force=False)
        except NotFound:
            return

    def create_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        """Make a volume of the local driver."""
        with translated(f"create volume {name}"):
            made = self._client().create_volume(name, driver="local", labels=dict(labels))
        return docker_reading.volume(made)

    def remove_volume(self, name: str) -> None:
        """Remove a volume that no container mounts."""
        try:
            with translated(f"remove volume {name}"):
                self._client().remove_volume(name, force=False)
        except NotFound:
            return

    def ensure_network(self, plan: NetworkPlan) -> None:
        """Make the bridge, without traffic between its members."""
        with translated(f"make network {plan.name}"):
            if any(found["Name"] == plan.name for found in self._client().networks(names=[plan.name])):
                return
            try:
                self._client().create_network(
                    plan.name,
                    driver="bridge",
                    check_duplicate=True,
                    labels=dict(plan.labels),
                    ipam=IPAMConfig(),
                    options={
                        "com.docker.network.bridge.name": plan.bridge,
                        "com.docker.network.bridge.enable_icc": "false",
                        "com.docker.network.driver.mtu": str(plan.mtu_bytes),
                    },
                )
            except docker.errors.APIError as error:
                if error.status_code != HTTP_CONFLICT:
                    raise

    def attach(self, container_id: str, network: str) -> None:
        """Connect a container; what it knew of a former network of that name is replaced."""
        with translated(f"connect container {container_id[:12]} to network {network}"):
            self._client().connect_container_to_network(container_id, network)

    def last_lines(self, container_id: str, lines: int) -> str:
        """The end of the container's output."""
        with translated(f"read the log of container {container_id[:12]}"):
            output: bytes = self._client().logs(container_id, stdout=True, stderr=True, tail=lines)
        return output.decode("utf-8", "replace").strip()

    def changes(self) -> Iterator[None]:
        """Container events of this node, until the connection ends."""
        with translated("follow the engine's events"):
            client = self._connect()
            with self._lock:
                self._events = client.events(filters={**self._mine(), **_LIFE_EVENTS}, decode=True)
            yield
            for _event in self._events:
                yield

    def close(self) -> None:
        """Drop connections; `changes` ends."""
        with self._lock:
            self._closed = True
            if self._events is not None:
                self._events.close()
            for client in (self._connected, self._transferring):
                if client is not None:
                    client.close()

    def _client(self) -> docker.APIClient:
        with self._lock:
            self._check_open()
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _transfer_client(self) -> docker.APIClient:
        with self._lock:
            self._check_open()
            if self._transferring is None:
                self._transferring = self._connect(TRANSFER_TIMEOUT_S)
            return self._transferring

    def _check_open(self) -> None:
        if self._closed:
            raise EngineUnavailable("The agent is stopping. The step will be asked for again.")

    def _connect(self, timeout_s: int = CALL_TIMEOUT_S) -> docker.APIClient:
        return self._connected_as(docker.APIClient, timeout_s)

    def _connected_as(self, kind: type[C], timeout_s: int) -> C:
        where = {"base_url": self._base_url} if self._base_url else docker.utils.kwargs_from_env()
        client = kind(
            version="auto",
            timeout=timeout_s,
            num_pools=CONNECTIONS_MAX,
            max_pool_size=CONNECTIONS_MAX,
            **where,
        )
        check_api_version(client.api_version)
        return client


def _ignored(container_id: str, error: StepError) -> StopIgnored:
    return StopIgnored(
        f"The pod did not stop: processes of container {container_id[:12]} are still there after SIGTERM and "
        "SIGKILL. It is neither saved nor removed before they have ended, and stopping it is tried again. "
        "Look at them on the node (docker top): a disk or a network share that hangs, or a frozen cgroup. "
        f"{error.message}"
    )
