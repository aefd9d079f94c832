"""Each primitive step's effects, on the ports. The fence is asked right before each of them (LAW 5)."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import assert_never

from node_agent import labels, removal
from node_agent.archives import Coming
from node_agent.errors import Conflict, EngineRefused, ImageNotFound, NotFound, StepError, TakenBack
from node_agent.host import disk_errors
from node_agent.look import find_volume, image_wanted
from node_agent.parts import Fence, Parts, ProgressNote
from node_agent.readiness import POLL_EVERY_S
from node_agent.runtime import STOP_GRACE_S, Container, ContainerPlan, Volume, VolumeState
from node_agent.safe_filling import SafeFilling
from node_agent.steps import (
    AwaitReady,
    MakeContainer,
    MakeVolume,
    PlaceLab,
    Primitive,
    PullImage,
    RemoveContainer,
    RemoveVolume,
    SaveContainer,
    SaveVolume,
    StartContainer,
    StopContainer,
    SweepContainer,
    SweepVolume,
    UnpauseContainer,
)
from node_agent.ways import Way
from state.wire import Action, ArchiveMade, ArchiveSource, CreatePod, PodSpec, RestorePod, StartPod

LOG_LINES_SHOWN = 15
INSPECT_EVERY_S = 0.2


class Performer:
    """Does one primitive step after another for one action."""

    def __init__(self, parts: Parts, action: Action, fence: Fence, note: ProgressNote) -> None:
        self._parts = parts
        self._archives = parts.archives.attended(fence.check)
        self._action = action
        self._fence = fence
        self._note = note

    def perform(self, step: Primitive) -> ArchiveMade | None:
        """Do it. Returns what was committed, for save steps. Raises StepError, TakenBack, Later."""
        self._fence.check()
        if isinstance(step, SaveContainer | SaveVolume):
            return self._save(step)
        if isinstance(step, StartContainer | UnpauseContainer | AwaitReady | StopContainer):
            self._run(step)
        elif isinstance(step, MakeVolume | PullImage | PlaceLab | MakeContainer):
            self._make(step)
        else:
            self._remove(step)
        return None

    def _save(self, step: SaveContainer | SaveVolume) -> ArchiveMade:
        archives, note = self._archives, partial(self._note, "saving")
        if isinstance(step, SaveContainer):
            container = self._inspect(step.container_id)
            if container.quiet:
                self._parts.ghosts.end(container.id)
            still = partial(self._pod_is_still, container)
            with self._parts.ways.changes_of(container) as source:
                return archives.save_pod(self._action, container, source, step.number, still, note)
        volume = self._volume()
        return archives.save_workspace(
            self._action, volume, step.number, partial(self._workspace_is_still, volume), note
        )

    def _run(self, step: StartContainer | UnpauseContainer | AwaitReady | StopContainer) -> None:
        match step:
            case StartContainer(container_id):
                self._start(self._inspect(container_id))
                # In one step: a pod that exits at once must not look as if it had never been started.
                self._await_ready(container_id)
            case UnpauseContainer(container_id):
                self._parts.runtime.unpause(container_id)
            case AwaitReady(container_id):
                self._await_ready(container_id)
            case StopContainer(container_id):
                self._parts.runtime.stop(container_id, STOP_GRACE_S)
            case _ as never:
                assert_never(never)

    def _make(self, step: MakeVolume | PullImage | PlaceLab | MakeContainer) -> None:
        match step:
            case MakeVolume(source):
                self._make_volume(source)
            case PullImage(spec):
                self._pull(spec)
            case PlaceLab(lab):
                self._archives.place_lab(self._volume(), lab, self._action.pod_id or "")
            case MakeContainer(spec, image_id, source):
                self._make_container(spec, image_id, source)
            case _ as never:
                assert_never(never)

    def _remove(self, step: SweepContainer | SweepVolume | RemoveContainer | RemoveVolume) -> None:
        match step:
            case SweepContainer(container_id):
                removal.sweep_container(self._parts, container_id)
            case SweepVolume():
                removal.sweep_volume(self._parts, self._action)
            case RemoveContainer(container_id, proof):
                removal.remove_container(self._parts, self._action, container_id, proof, self._fence)
            case RemoveVolume(proof):
                removal.remove_volume(self._parts, self._action, proof, self._fence)
            case _ as never:
                assert_never(never)

    # ---- making --------------------------------------------------------------------------------------------

    def _make_volume(self, source: ArchiveSource | None) -> None:
        action, host = self._action, self._parts.host
        name = labels.volume_name(action.workspace_id, action.epoch)
        written = labels.VolumeLabels(
            action.user_id, action.workspace_id, self._parts.settings.node_id, action.epoch
        )
        with (
            self._fetching(source) as coming,
            _discarded_on_failure(partial(removal.sweep_volume, self._parts, action)),
        ):
            volume = self._parts.runtime.create_volume(name, written.as_labels())
            if coming is None:
                host.own_top(volume)
            else:
                host.mark(volume, VolumeState.HALF)
                self._restore(coming, volume.mountpoint)
            host.mark(volume, VolumeState.WHOLE)

    def _fetching(self, source: ArchiveSource | None) -> AbstractContextManager[Coming | None]:
        """Begin to fetch before there is a place for it: making that takes the engine a while."""
        return nullcontext() if source is None else self._archives.fetching(self._action, source)

    def _pull(self, spec: PodSpec) -> None:
        step = self._action.step
        assert isinstance(step, CreatePod | RestorePod)
        wanted = image_wanted(self._parts, step)
        with self._parts.images.lane():
            if self._parts.images.fetch(wanted, partial(self._note, "fetching the image")):
                return
            self._parts.runtime.pull(spec.image, self._attend_pull)
        if self._parts.runtime.image_id(wanted) is None:
            raise ImageNotFound(
                f"The pod was made of the image {wanted}, which is neither on the node nor in the store; "
                f"{spec.image!r} now names another one. Load the old image on the node (docker load), or "
                "pull it by digest."
            )

    def _attend_pull(self, done_bytes: int, total_bytes: int | None) -> None:
        self._fence.check()
        self._note("pulling the image", done_bytes, total_bytes)

    def _make_container(self, spec: PodSpec, image_id: str, source: ArchiveSource | None) -> None:
        action, runtime = self._action, self._parts.runtime
        name = labels.container_name(action.pod_id or "", action.epoch)
        with self._fetching(source) as coming:
            runtime.ensure_network(self._parts.network)
            if coming is None:
                runtime.create(self._plan(name, spec, image_id))
            elif self._parts.ways.found().way is Way.FAST:
                self._make_restored(spec, image_id, coming)
            else:
                self._make_restored_safely(spec, image_id, coming)

    def _make_restored(self, spec: PodSpec, image_id: str, coming: Coming) -> None:
        made = self._parts.runtime.create(self._half_plan(spec, image_id))
        with _discarded_on_failure(partial(removal.sweep_container, self._parts, made.id)):
            self._restore(coming, str(self._parts.ways.upper_dir(made)))
            self._make_whole(made)

    def _make_restored_safely(self, spec: PodSpec, image_id: str, coming: Coming) -> None:
        with self._parts.ways.scratch() as tree:
            self._restore(coming, str(tree))
            made = self._parts.runtime.create(replace(self._half_plan(spec, image_id), gated=True))
            with _discarded_on_failure(partial(removal.sweep_container, self._parts, made.id)):
                SafeFilling(self._parts, made, self._fence).fill(tree)
                self._fence.check()
                self._make_whole(made)

    def _make_whole(self, made: Container) -> None:
        self._parts.runtime.rename(
            made.id, labels.container_name(made.labels[labels.POD], self._action.epoch)
        )

    def _half_plan(self, spec: PodSpec, image_id: str) -> ContainerPlan:
        action = self._action
        half = labels.partial_name(action.pod_id or "", action.epoch, action.attempt)
        return self._plan(half, spec, image_id)

    def _restore(self, coming: Coming, target_dir: str) -> None:
        self._archives.restore(coming, target_dir, partial(self._note, "restoring"))
        self._fence.check()

    def _plan(self, name: str, spec: PodSpec, image_id: str) -> ContainerPlan:
        action, settings = self._action, self._parts.settings
        pod_id = action.pod_id or ""
        written = labels.PodLabels(
            pod=pod_id,
            user=action.user_id,
            workspace=action.workspace_id,
            node=settings.node_id,
            epoch=action.epoch,
            generation=action.generation,
            name=spec.name,
            image=spec.image,
        )
        return ContainerPlan(
            name=name,
            image_id=image_id,
            labels=written.as_labels(),
            hostname=pod_id,
            volume=labels.volume_name(action.workspace_id, action.epoch),
            session_dir=self._parts.host.session_dir(pod_id, action.epoch),
            network=self._parts.network.name,
            runtime=self._parts.container_runtime(),
            publish_address=settings.publish_address,
            cpu_millis=spec.cpu_millis,
            memory_mib=spec.memory_mib,
            pids=spec.pids,
        )

    # ---- running -------------------------------------------------------------------------------------------

    def _start(self, container: Container) -> None:
        if container.session_dir is None:
            raise StepError(
                "The pod's container has no session directory: it was not made by this agent's steps. "
                "Look at it on the node with docker inspect.",
                code="container_strange",
            )
        runtime, network = self._parts.runtime, self._parts.network
        runtime.ensure_network(network)
        self._parts.firewall.ensure()
        self._parts.host.write_session(container.session_dir)
        if isinstance(self._action.step, StartPod):
            with disk_errors("write down the pod's fence"):
                self._parts.fences.set(container.id, self._action.step.self_fence_s)
        self._fence.check()
        try:
            runtime.start(container.id)
        except NotFound:
            # Somebody's `docker network prune` takes networks that only stopped containers are in.
            runtime.attach(container.id, network.name)
            self._fence.check()
            runtime.start(container.id)
        except (EngineRefused, Conflict):
            if self._inspect(container.id).live or not self._parts.ghosts.end(container.id, shim_too=True):
                raise
            self._fence.check()
            runtime.start(container.id)

    def _await_ready(self, container_id: str) -> None:
        deadline = time.monotonic() + self._parts.settings.start_timeout_s_max
        while time.monotonic() < deadline:
            container = self._running(container_id)
            look_again_at = time.monotonic() + INSPECT_EVERY_S
            while time.monotonic() < look_again_at:
                if self._answers(container):
                    self._parts.ready.confirm(container)
                    return
                self._fence.taken_back.wait(POLL_EVERY_S)
                self._fence.check()
        self._parts.runtime.stop(container_id, STOP_GRACE_S)
        raise StepError(
            f"The IDE did not answer within {self._parts.settings.start_timeout_s_max:.0f} s, and the pod "
            f"was stopped. {self._said(container_id)}",
            code="start_timeout",
        )

    def _answers(self, container: Container) -> bool:
        secret = self._parts.host.read_session(container.session_dir)
        if container.host_port is None or secret is None:
            return False
        return self._parts.ide_answers(self._parts.settings.probe_address, container.host_port, secret)

    def _running(self, container_id: str) -> Container:
        container = self._inspect(container_id)
        if container.live:
            return container
        cause = "it ran out of memory" if container.oom_killed else f"exit code {container.exit_code}"
        raise StepError(
            f"The pod exited while it was starting ({cause}). {self._said(container_id)}",
            code="exited_at_start",
        )

    def _said(self, container_id: str) -> str:
        try:
            lines = self._parts.runtime.last_lines(container_id, LOG_LINES_SHOWN)
        except StepError:
            lines = ""
        return f"Its last lines: {lines}" if lines else "It said nothing."

    # ---- looking -------------------------------------------------------------------------------------------

    def _inspect(self, container_id: str) -> Container:
        container = self._parts.runtime.inspect(container_id)
        if container is None:
            raise StepError("The pod's container was removed meanwhile. It is made again.", code="pod_absent")
        return container

    def _volume(self) -> Volume:
        volume = find_volume(self._parts, self._action)
        if volume is None:
            raise StepError(
                "The user's workspace was removed meanwhile. It is made again.", code="workspace_absent"
            )
        return volume

    def _pod_is_still(self, container: Container) -> bool:
        """Asked right before an archive's manifest is written: is the source what was read?"""
        self._fence.check()
        now = self._inspect(container.id)
        return now.quiet and now.fingerprint == container.fingerprint

    def _workspace_is_still(self, volume: Volume) -> bool:
        self._fence.check()
        return not any(user.live for user in self._parts.runtime.users_of(volume.name))


@contextmanager
def _discarded_on_failure(discard: Callable[[], None]) -> Iterator[None]:
    """Leave nothing half made behind a step that failed: it may never be asked for again."""
    try:
        yield
    except (StepError, TakenBack):
        with suppress(StepError):
            discard()
        raise
