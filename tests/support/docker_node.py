"""A node of its own on the Docker engine: real containers and volumes, and a store in a directory."""

import json
import os
import secrets
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from node_agent import labels
from node_agent.archive.memory import Memory
from node_agent.archive.turns import Turns
from node_agent.archives import Archives
from node_agent.directory_store import DirectoryStore
from node_agent.docker_pulls import PullBounds
from node_agent.docker_runtime import DockerRuntime
from node_agent.executor import Executor
from node_agent.facts import outgoing_mtu_bytes
from node_agent.fencer import Fences
from node_agent.firewall import Firewall, name_servers_of, rules_for
from node_agent.host import HostFiles
from node_agent.images import Images
from node_agent.journal import Journal
from node_agent.parts import Parts, network_plan
from node_agent.runtime import Container, Volume
from node_agent.settings import Settings
from node_agent.ways import Ways
from state import wire
from tests.support.engine_sweep import sweep

CHECKOUT = Path(__file__).resolve().parents[2]
USER = "alice"
# Files of tests run side by side on one engine, where a name is taken once.
_OURS = secrets.token_hex(3)


def own_pod(name: str) -> str:
    """The id of a pod that no other process of tests has."""
    return f"p-{name}-{_OURS}"


ONE, TWO = own_pod("one"), own_pod("two")


def pod_image() -> str:
    """The image that the installation built."""
    home = Path(os.environ.get("CODEPODS_HOME", CHECKOUT / ".codepods"))
    return (home / "pod_image").read_text().splitlines()[0]


def proof_of(made: wire.ArchiveMade) -> wire.ArchiveProof:
    """The proof that follows from a committed archive."""
    return wire.ArchiveProof(
        manifest_key=made.manifest_key, manifest_digest=made.manifest_digest, fingerprint=made.fingerprint
    )


def source_of(made: wire.ArchiveMade) -> wire.ArchiveSource:
    """Where to restore a committed archive from."""
    return wire.ArchiveSource(manifest_key=made.manifest_key, manifest_digest=made.manifest_digest)


class DockerNode:
    """Executes actions for one user on the real engine, and cleans up what it made."""

    def __init__(
        self, root: Path, *, store_dir: Path | None = None, node_id: str = "", **settings: object
    ) -> None:
        self.node_id = node_id or f"test-{secrets.token_hex(4)}"
        self.workspace_id = f"w-{secrets.token_hex(4)}"
        self.store_dir = store_dir or root / "store"
        self.store_dir.mkdir(parents=True, exist_ok=True)
        defaults: dict[str, object] = {"accept_unsandboxed": True, "start_timeout_s_max": 30.0}
        self.settings = Settings.model_validate(
            {"node_id": self.node_id, "data_dir": root / self.node_id, **defaults, **settings}
        )
        self.store = DirectoryStore(self.store_dir)
        self.parts = self._parts()
        self.executor = Executor(self.parts)
        self._attempts = 0

    def _parts(self) -> Parts:
        name_servers = name_servers_of(Path("/etc/resolv.conf").read_text())
        bounds = PullBounds(self.settings.pull_silence_s_max, self.settings.pull_timeout_s_max)
        runtime = DockerRuntime(self.node_id, self.settings.docker_host, bounds)
        return Parts(
            settings=self.settings,
            runtime=runtime,
            host=HostFiles(self.settings.data_dir),
            journal=Journal(self.settings.data_dir / "journal.json", self.node_id),
            archives=Archives(
                self.store, Memory(self.settings.data_dir / "archives"), Turns(self.settings.uploads_at_once)
            ),
            firewall=Firewall(rules_for(self.node_id, name_servers, self.settings.blocked_networks)),
            network=network_plan(self.node_id, outgoing_mtu_bytes()),
            fences=Fences(self.settings.data_dir / "fences.json"),
            images=Images(runtime, self.store),
            ways=Ways(runtime, self.settings.archive_way, self.settings.data_dir / "scratch"),
        )

    def restart(self) -> None:
        """The agent's process ends and another begins: nothing in memory is left."""
        self.parts.runtime.close()
        self.parts = self._parts()
        self.executor = Executor(self.parts)

    # ---- actions -------------------------------------------------------------------------------------------

    def action(
        self,
        step: wire.PodStep | wire.WorkspaceStep,
        pod_id: str | None = None,
        *,
        epoch: int = 1,
        generation: int = 1,
    ) -> wire.Action:
        """An action for the user's workspace, or for one of the user's pods."""
        assert pod_id is None or pod_id.endswith(_OURS), "another process of tests may have a pod of this id"
        self._attempts += 1
        return wire.Action(
            id=f"action-{self._attempts}",
            workspace_id=self.workspace_id,
            user_id=USER,
            pod_id=pod_id,
            epoch=epoch,
            generation=generation,
            attempt=self._attempts,
            step=step,
        )

    def do(
        self, step: wire.PodStep | wire.WorkspaceStep, pod_id: str | None = None, *, epoch: int = 1
    ) -> wire.StepDone | wire.StepFailed:
        """Execute one step."""
        return self.executor.execute(self.action(step, pod_id, epoch=epoch))

    def done(
        self, step: wire.PodStep | wire.WorkspaceStep, pod_id: str | None = None, *, epoch: int = 1
    ) -> wire.ArchiveMade | None:
        """Execute one step that must succeed."""
        result = self.do(step, pod_id, epoch=epoch)
        assert isinstance(result, wire.StepDone), result
        return result.archive

    def refused(
        self, step: wire.PodStep | wire.WorkspaceStep, pod_id: str | None = None, *, epoch: int = 1
    ) -> wire.StepFailed:
        """Execute one step that must fail."""
        result = self.do(step, pod_id, epoch=epoch)
        assert isinstance(result, wire.StepFailed), result
        return result

    def saved(self, pod_id: str | None = None, *, epoch: int = 1) -> wire.ArchiveMade:
        """Archive the pod, or the workspace."""
        step = wire.ArchiveWorkspace(number=1) if pod_id is None else wire.ArchivePod(number=1)
        made = self.done(step, pod_id, epoch=epoch)
        assert made is not None
        return made

    def stopped_pod(
        self, pod_id: str = ONE, *, image: str | None = None, lab: str | None = None
    ) -> Container:
        """A workspace and a fresh pod that has never run."""
        self.done(wire.CreateWorkspace())
        self.done(wire.CreatePod(spec=wire.PodSpec(name="ide", image=image or pod_image(), lab=lab)), pod_id)
        return self.container(pod_id)

    def running_pod(self, pod_id: str = ONE, *, lab: str | None = None) -> Container:
        """A pod whose IDE answers."""
        self.stopped_pod(pod_id, lab=lab)
        self.done(wire.StartPod(), pod_id)
        return self.container(pod_id)

    def stop(self, pod_id: str = ONE) -> Container:
        """Stop the pod."""
        self.done(wire.StopPod(), pod_id)
        return self.container(pod_id)

    # ---- what is there -------------------------------------------------------------------------------------

    def container(self, pod_id: str = ONE, epoch: int = 1) -> Container:
        """The pod's container, which must be there."""
        found = self.parts.runtime.inspect(labels.container_name(pod_id, epoch))
        assert found is not None
        return found

    def has_container(self, pod_id: str = ONE, epoch: int = 1) -> bool:
        """Whether the pod's container is there."""
        return self.parts.runtime.inspect(labels.container_name(pod_id, epoch)) is not None

    def volume(self, epoch: int = 1) -> Volume:
        """The workspace's volume, which must be there."""
        found = self.parts.runtime.volume(labels.volume_name(self.workspace_id, epoch))
        assert found is not None
        return found

    def files(self, epoch: int = 1) -> Path:
        """The workspace's directory on the node."""
        return Path(self.volume(epoch).mountpoint)

    def run(self, pod_id: str, script: str, *, user: str = "coder", epoch: int = 1) -> str:
        """Run a shell script inside the pod; what it printed."""
        argv = ["docker", "exec", "--user", user, self.container(pod_id, epoch).id, "sh", "-c", script]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout

    def host_config(self, pod_id: str) -> dict[str, Any]:
        """The engine's settings of the pod's container."""
        argv = ["docker", "inspect", "--format", "{{json .HostConfig}}", self.container(pod_id).id]
        shown: dict[str, Any] = json.loads(subprocess.check_output(argv, timeout=60))
        return shown

    def publish_lab(self, lab: str, files: Mapping[str, str]) -> None:
        """Put a lab into the store."""
        buffer = BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                member.mtime = 1_600_000_000
                tar.addfile(member, BytesIO(text.encode()))
        with self.store.open_writer(f"labs/{lab}.tar") as writer:
            writer.write(buffer.getvalue())
            writer.commit()

    # ---- the end -------------------------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Remove what this node has on the engine."""
        try:
            sweep(self.node_id, self.parts.network.name)
        finally:
            self.parts.firewall.remove()
            self.parts.runtime.close()
