"""A scripted node with the files in it: it keeps the agent's side of the laws, and notes what would be lost.

Contents are counted: each write of the user adds one. The store is shared by all nodes.
"""

from dataclasses import dataclass, field

from state.model import Observed
from state.wire import (
    Action,
    ArchiveMade,
    ArchivePod,
    ArchiveProof,
    CreatePod,
    RemovePod,
    RemoveWorkspace,
    RestorePod,
    RestoreWorkspace,
    StartPod,
    StepDone,
    StepFailed,
    StopPod,
)
from tests.support.scripted_node import ScriptedNode


class Refusal(Exception):
    """The step is not done, with the agent's code for it."""


@dataclass
class Truth:
    """What no row says: the writes of each pod's user, and what the store holds."""

    written: dict[str, int] = field(default_factory=dict)
    store: dict[str, int] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)


@dataclass
class LawfulNode(ScriptedNode):
    """Fences by epoch, repeats safely, and removes nothing without proof."""

    truth: Truth = field(default_factory=Truth)
    contents: dict[str, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)

    def perform(self) -> list[str]:
        """Do what is in hand, some of it for the second time."""
        actions, self.in_hand = list(self.in_hand.values()), {}
        for action in actions:
            self.results[action.id] = self.answer(action)
            self.done.append(action)
        return [action.step.verb for action in actions]

    def answer(self, action: Action) -> StepDone | StepFailed:
        """Do one step."""
        try:
            return StepDone(action_id=action.id, archive=self._do(action))
        except Refusal as refusal:
            return StepFailed(action_id=action.id, code=str(refusal), message=f"Refused: {refusal}.")

    def restart(self) -> None:
        """kill -9: the engine's containers are still there, the agent's memory is gone."""
        self.boot_id, self.sequence = f"{self.boot_id}'", 0
        self.in_hand, self.results = {}, {}

    def write(self) -> None:
        """Every user at a running pod saves a file."""
        for pod_id, pod in self.pods.items():
            if pod.state is Observed.RUNNING:
                self.contents[pod_id] += 1
                self.truth.written[pod_id] = self.contents[pod_id]

    def _do(self, action: Action) -> ArchiveMade | None:
        pod_id = action.pod_id or ""
        if action.epoch < self.epochs.get(action.workspace_id, 0):
            raise Refusal("stale_epoch")
        self.epochs[action.workspace_id] = action.epoch
        here = self.pods.get(pod_id)
        match action.step:
            case StartPod() | StopPod() | ArchivePod() if here is None:
                raise Refusal("source_changed")
            case StartPod() if here and here.state is Observed.RUNNING:
                return None
            case StopPod() if here and here.state is Observed.STOPPED:
                return None
            case ArchivePod() if here and here.state is not Observed.STOPPED:
                raise Refusal("source_changed")
            case RemovePod() if here:
                self._check_removal(action, action.step)
            case RemoveWorkspace() if any(
                pod.workspace_id == action.workspace_id for pod in self.pods.values()
            ):
                raise Refusal("source_changed")
            case RestoreWorkspace() if action.step.archive.manifest_key not in self.truth.store:
                raise AssertionError(f"nothing to restore from: {action}")
            case CreatePod() if here is None:
                assert pod_id not in self.truth.written, f"a pod with files is made anew: {action}"
                self.contents[pod_id] = 0
            case RestorePod() if here is None:
                self.contents[pod_id] = self.truth.store[action.step.archive.manifest_key]
        made = super()._do(action)
        if made is not None:
            self.truth.store[made.manifest_key] = self.contents.get(pod_id, 0)
        return made

    def _check_removal(self, action: Action, step: RemovePod) -> None:
        pod_id = action.pod_id or ""
        if self.pods[pod_id].state is not Observed.STOPPED:
            raise Refusal("source_changed")
        if isinstance(step.proof, ArchiveProof):
            if step.proof.fingerprint != self.pods[pod_id].fingerprint:
                raise Refusal("source_changed")
            assert self.truth.store[step.proof.manifest_key] == self.contents[pod_id], "the only copy goes"
        else:
            self.truth.deleted.add(pod_id)
