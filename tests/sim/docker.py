"""A node's engine and disk in memory, behind production's ports: the truth, which survives the agent."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from node_agent.errors import (
    Conflict,
    EngineRefused,
    ImageNotFound,
    NotFound,
    StepError,
)
from node_agent.labels import EPOCH, NODE, POD
from node_agent.runtime import (
    LIVE,
    Container,
    ContainerPlan,
    EngineFacts,
    EngineFiles,
    EngineImages,
    NetworkPlan,
    Sight,
    Status,
    Volume,
)
from tests.sim.machine import IMAGE_ID, SimContainer, SimMachine, SimVolume

REFERENCE = "image:1"
STOP_TAKES_S = 0.2


@dataclass(eq=False)
class SimDocker(SimMachine):
    """One node's engine."""

    # ---- the engine's port ---------------------------------------------------------------------------------

    @property
    def files(self) -> EngineFiles:
        """See Runtime; only the fast way is simulated, and it asks for nothing but a directory."""
        return cast("EngineFiles", self)

    @property
    def images(self) -> EngineImages:
        """See Runtime; every image is there, so none is ever asked for."""
        return cast("EngineImages", self)

    def upper_dir(self, container: Container) -> str | None:
        """See EngineFiles."""
        return container.upper_dir

    def facts(self) -> EngineFacts:
        """See Runtime."""
        return self.call(
            "facts", lambda: EngineFacts("28", "1.48", "overlay2", ("runc",), self.cpu_millis, 16384)
        )

    def look(self) -> Sight:
        """See Runtime."""
        return self.call("look", self._look)

    def _look(self) -> Sight:
        self.looked_s[self.scheduler.actor_name] = self.scheduler.now_s
        listed = [found for found in self.containers.values() if self._is_mine(found)]
        if listed and self.has("list_misses"):
            self.lied_s = self.scheduler.now_s
            self.trouble.pop("list_misses")
            listed.pop(0)
        return Sight(
            tuple(found.seen() for found in listed),
            tuple(found.seen() for found in self.volumes.values() if self._is_mine(found)),
        )

    def _is_mine(self, thing: SimContainer | SimVolume) -> bool:
        return thing.labels.get(NODE) == self.node_id

    def of_pod(self, pod_id: str, epoch: int | None = None) -> tuple[Container, ...]:
        """See Runtime."""
        wanted = {POD: pod_id, NODE: self.node_id, **({} if epoch is None else {EPOCH: str(epoch)})}
        return self.call(
            "of_pod",
            lambda: tuple(c.seen() for c in self.containers.values() if wanted.items() <= c.labels.items()),
        )

    def inspect(self, container: str) -> Container | None:
        """See Runtime."""
        return self.call("inspect", lambda: self._inspect(container), detail=container)

    def _inspect(self, container: str) -> Container | None:
        named = (found for found in self.containers.values() if found.name == container)
        found = self.containers.get(container) or next(named, None)
        return found.seen() if found else None

    def volume(self, name: str) -> Volume | None:
        """See Runtime."""
        return self.call("volume", lambda: self.volumes[name].seen() if name in self.volumes else None)

    def users_of(self, volume: str) -> tuple[Container, ...]:
        """See Runtime."""
        return self.call(
            "users_of", lambda: tuple(c.seen() for c in self.containers.values() if c.volume == volume)
        )

    def image_id(self, reference: str) -> str | None:
        """See Runtime; one image is there."""
        return self.call("image_id", lambda: IMAGE_ID if self._has_image(reference) else None)

    def _has_image(self, reference: str) -> bool:
        return reference in (REFERENCE, IMAGE_ID) and not self.has("image_gone")

    def pull(self, reference: str, attend: Callable[[int, int | None], None]) -> None:
        """See Runtime."""

        def effect() -> None:
            if not self._has_image(reference):
                raise ImageNotFound("The registry answers: too many requests.", permanent=False)

        self.call("pull", effect)

    def create(self, plan: ContainerPlan) -> Container:
        """See Runtime."""
        return self.call("create", lambda: self._create(plan), mutates=True, detail=plan.name)

    def _create(self, plan: ContainerPlan) -> Container:
        if not self._has_image(plan.image_id):
            raise NotFound(f"There is no image {plan.image_id}.")
        if self.has("name_taken") or any(found.name == plan.name for found in self.containers.values()):
            raise Conflict(f"The name {plan.name} is taken.")
        self.made += 1
        container_id = f"{self.node_id}-c{self.made}"
        upper = f"/sim/{self.disk}/{container_id}"
        made = SimContainer(
            container_id,
            plan.name,
            dict(plan.labels),
            plan.volume,
            plan.session_dir,
            20000 + self.made,
            upper,
            self.trees.make(upper),
            made_at_s=self.scheduler.now_s,
        )
        if plan.volume not in self.volumes:
            # The engine makes a missing volume by itself, without our labels or marker.
            self._create_volume(plan.volume, {})
        self.containers[container_id] = made
        self._did("create", made)
        return made.seen()

    def rename(self, container_id: str, name: str) -> None:
        """See Runtime."""

        def effect() -> None:
            found = self._container(container_id)
            if found.name == name:
                raise EngineRefused("It has this name already.")
            if any(other.name == name for other in self.containers.values()):
                raise Conflict(f"The name {name} is taken.")
            found.name = name
            self._did("rename", found)

        self.call("rename", effect, mutates=True, detail=name)

    def start(self, container_id: str) -> None:
        """See Runtime."""

        def effect() -> None:
            if self.has("black_hole"):
                raise EngineRefused("The runtime cannot be started.")
            self.start_now(container_id)
            self.doom(container_id)

        self.call("start", effect, mutates=True, detail=container_id)

    def pause(self, container_id: str) -> None:
        """See Runtime."""

        def effect() -> None:
            found = self._container(container_id)
            if found.status not in LIVE:
                raise Conflict("The container does not run.")
            found.status = Status.PAUSED
            self.pauses += 1

        self.call("pause", effect, detail=container_id)

    def unpause(self, container_id: str) -> None:
        """See Runtime."""

        def effect() -> None:
            found = self._container(container_id)
            if found.status is not Status.PAUSED:
                raise EngineRefused("The container is not paused.")
            found.status = Status.RUNNING

        self.call("unpause", effect, detail=container_id)

    def stop(self, container_id: str, grace_s: int) -> None:
        """See Runtime."""

        def effect() -> None:
            if not self.has(f"stuck_pod {self._container(container_id).pod_id}"):
                self.stop_now(container_id)

        self.call("stop", effect, mutates=True, detail=container_id)
        self.scheduler.sleep(STOP_TAKES_S)

    def remove(self, container_id: str) -> None:
        """See Runtime."""

        def effect() -> None:
            found = self.containers.get(container_id)
            if found is None:
                return
            if found.status in LIVE:
                raise Conflict("The container runs.")
            self._did("remove", found)
            del self.containers[container_id]
            self.trees.drop(found.upper_dir)

        self.call("remove", effect, mutates=True, detail=container_id)

    def create_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        """See Runtime; one that is there is returned as it is."""
        return self.call(
            "create_volume", lambda: self._create_volume(name, labels), mutates=True, detail=name
        )

    def _create_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        if name not in self.volumes:
            mountpoint = f"/sim/{self.disk}/volumes/{name}"
            made = SimVolume(name, dict(labels), mountpoint, self.trees.make(mountpoint))
            self.volumes[name] = made
            self._did("create_volume", made)
        return self.volumes[name].seen()

    def remove_volume(self, name: str) -> None:
        """See Runtime."""

        def effect() -> None:
            found = self.volumes.get(name)
            if found is None:
                return
            if any(user.volume == name for user in self.containers.values()):
                raise Conflict("A container mounts the volume.")
            self._did("remove_volume", found)
            del self.volumes[name]
            self.trees.drop(found.mountpoint)

        self.call("remove_volume", effect, mutates=True, detail=name)

    def ensure_network(self, plan: NetworkPlan) -> None:
        """See Runtime; the network is always there."""

    def attach(self, container_id: str, network: str) -> None:
        """See Runtime."""

        def effect() -> None:
            if self._container(container_id).status in LIVE:
                raise EngineRefused("It is a member already.")

        self.call("attach", effect)

    def last_lines(self, container_id: str, lines: int) -> str:
        """See Runtime; it never says anything."""
        return self.call("last_lines", lambda: self._container(container_id) and "")

    def changes(self) -> Iterator[None]:
        """See Runtime; hints only, and this engine gives none."""
        return iter(())

    def close(self) -> None:
        """See Runtime."""

    def answers(self, _host: str, port: int, _secret: str) -> bool:
        """Stands for `ide_answers`."""

        def effect() -> bool:
            return any(
                found.host_port == port and self.scheduler.now_s >= found.answers_at_s
                for found in self.containers.values()
                if found.status is Status.RUNNING
            )

        return self.scheduler.call("ide.answers", effect, _no_probe_error)


def _no_probe_error(message: str) -> Exception:
    return StepError(message, code="engine_unavailable")
