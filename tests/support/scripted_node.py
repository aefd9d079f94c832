"""A node that speaks the real protocol to the real gateway and has no engine: its containers are a dict.

It shows what the control plane does; what nodes do is tested with the real agent on a real engine.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from state import wire
from state.model import Observed, WorkspaceObserved

FACTS = wire.NodeFacts(
    address="10.0.0.1",
    cpu_millis=8000,
    memory_mib=16384,
    engine_version="28",
    api_version="1.48",
    storage_driver="overlay2",
    runtime="runc",
    agent_version="0",
)
# Of the image whose configuration is an empty object.
IMAGE_ID = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
SECRET = "5" * 64
SYNCS_MAX = 300


@dataclass
class ScriptedNode:
    """Carries out what it is told, at once and without fail, and reports it."""

    node_id: str
    boot_id: str = "boot-1"
    sequence: int = 0
    pods: dict[str, wire.PodReport] = field(default_factory=dict)
    volumes: dict[str, wire.WorkspaceReport] = field(default_factory=dict)
    in_hand: dict[str, wire.Action] = field(default_factory=dict)
    results: dict[str, wire.StepResult] = field(default_factory=dict)
    done: list[wire.Action] = field(default_factory=list)
    starts: int = 0
    facts: wire.NodeFacts = FACTS

    def request(self, **changes: Any) -> wire.SyncRequest:
        """The next sync."""
        self.sequence += 1
        message = {
            "node_id": self.node_id,
            "boot_id": self.boot_id,
            "sequence": self.sequence,
            "facts": self.facts,
            "report": self.report(),
            "results": tuple(self.results.values()),
            "in_hand": (*self.in_hand, *self.results),
            "ending": tuple(self.results),
        }
        return wire.SyncRequest(**(message | changes))

    def report(self) -> wire.Report:
        """All that is here."""
        return wire.Report(
            pods=tuple(self.pods.values()), workspaces=tuple(map(self._volume, self.volumes.values()))
        )

    def take(self, reply: wire.SyncReply) -> None:
        """Learn what was accepted and what is to be done."""
        for action_id in reply.accepted:
            self.results.pop(action_id, None)
        for action_id in set(reply.taken_back) - self.results.keys():
            self.in_hand.pop(action_id, None)
            self.results[action_id] = wire.StepFailed(
                action_id=action_id, code=wire.CANCELLED, message="It was not done."
            )
        self.in_hand |= {action.id: action for action in reply.actions}

    def perform(self) -> list[str]:
        """Do all that is in hand; the verbs, in order."""
        actions, self.in_hand = list(self.in_hand.values()), {}
        for action in actions:
            self.results[action.id] = wire.StepDone(action_id=action.id, archive=self._do(action))
            self.done.append(action)
        return [action.step.verb for action in actions]

    def fail(self, code: str, *, permanent: bool = False) -> None:
        """Fail at all that is in hand."""
        for action in self.in_hand.values():
            self.results[action.id] = wire.StepFailed(
                action_id=action.id, code=code, message=f"It failed: {code}.", permanent=permanent
            )
        self.in_hand = {}

    def crash(self, pod_id: str, exit_code: int = 1, **changes: Any) -> None:
        """The pod's container exits by itself."""
        self._exit(pod_id, exit_code=exit_code, **changes)

    def _do(self, action: wire.Action) -> wire.ArchiveMade | None:
        pod_id, workspace_id = action.pod_id or "", action.workspace_id
        match action.step:
            case wire.CreateWorkspace() | wire.RestoreWorkspace():
                self.volumes.setdefault(workspace_id, _new_volume(action))
            case wire.RemoveWorkspace():
                self.volumes.pop(workspace_id, None)
            case wire.CreatePod() | wire.RestorePod():
                self.pods.setdefault(pod_id, _new_pod(action))
            case wire.StartPod():
                self._start(pod_id, action.step.self_fence_s)
            case wire.StopPod():
                self._exit(pod_id, exit_code=0)
            case wire.RemovePod():
                self.pods.pop(pod_id, None)
            case wire.ArchivePod():
                return _archive(action, self.pods[pod_id].fingerprint, self.pods[pod_id].image_id)
            case wire.ArchiveWorkspace():
                return _archive(action, self._volume(self.volumes[workspace_id]).fingerprint, None)
        return None

    def _start(self, pod_id: str, self_fence_s: int | None) -> None:
        self.starts += 1
        self._change(
            pod_id,
            state=Observed.RUNNING,
            upstream=f"10.0.0.1:{20000 + self.starts}",
            session_secret=SECRET,
            fingerprint=None,
            exit_code=None,
            self_fence_s=self_fence_s,
            started_at=datetime(2026, 3, 1, tzinfo=UTC).replace(microsecond=self.starts),
        )

    def _exit(self, pod_id: str, **changes: Any) -> None:
        fingerprint = f"{self.pods[pod_id].container_id} after start {self.starts}"
        gone = {"upstream": None, "session_secret": None, "fingerprint": fingerprint, "self_fence_s": None}
        self._change(pod_id, state=Observed.STOPPED, **(gone | changes))

    def _change(self, pod_id: str, **changes: Any) -> None:
        self.pods[pod_id] = self.pods[pod_id].model_copy(update=changes)

    def _volume(self, volume: wire.WorkspaceReport) -> wire.WorkspaceReport:
        used = any(pod.workspace_id == volume.workspace_id for pod in self.pods.values())
        fingerprint = None if used else f"{volume.volume} after start {self.starts}"
        return volume.model_copy(update={"fingerprint": fingerprint})


class HttpNode(ScriptedNode):
    """The same over HTTP."""

    def __init__(self, node_id: str, token: str, url: str, **options: Any) -> None:
        super().__init__(node_id, **options)
        self._url = f"{url}/v1/sync"
        self._headers = {"Authorization": f"Bearer {token}"}

    def post(self, body: bytes | str) -> httpx.Response:
        """One raw call."""
        with httpx.Client(trust_env=False, verify=False, timeout=30) as client:
            return client.post(self._url, content=body, headers=self._headers)

    def sync(self, wait_s: float = 0, **changes: Any) -> wire.SyncReply:
        """One sync; what it brings is in hand after it."""
        request = self.request(wait_s=wait_s, **changes)
        response = self.post(request.model_dump_json())
        assert response.status_code == 200, response.text
        reply = wire.SyncReply.model_validate_json(response.content)
        self.take(reply)
        return reply

    def work_until(self, done: Callable[[], bool]) -> list[str]:
        """Sync and do what comes until `done`; the verbs, in order."""
        verbs: list[str] = []
        for _ in range(SYNCS_MAX):
            self.sync(wait_s=0 if self.results else 0.2)
            verbs += self.perform()
            if not self.results and done():
                return verbs
        raise AssertionError(f"not done after {SYNCS_MAX} syncs: {verbs}")


def _new_pod(action: wire.Action) -> wire.PodReport:
    return wire.PodReport(
        pod_id=action.pod_id or "",
        workspace_id=action.workspace_id,
        user_id=action.user_id,
        epoch=action.epoch,
        generation=action.generation,
        state=Observed.STOPPED,
        container_id=f"c-{action.id}",
        image_id=IMAGE_ID,
        fingerprint=f"c-{action.id} never started",
    )


def _new_volume(action: wire.Action) -> wire.WorkspaceReport:
    return wire.WorkspaceReport(
        workspace_id=action.workspace_id,
        user_id=action.user_id,
        epoch=action.epoch,
        state=WorkspaceObserved.PRESENT,
        volume=f"codepods-{action.workspace_id}-e{action.epoch}",
    )


def _archive(action: wire.Action, fingerprint: str | None, image_id: str | None) -> wire.ArchiveMade:
    key = f"archives/{action.target}/e{action.epoch}/a{action.attempt}/manifest.json"
    return wire.ArchiveMade(
        manifest_key=key,
        manifest_digest=f"sha256:{action.id}",
        fingerprint=fingerprint or "",
        size_bytes=1000,
        image_id=image_id,
    )
