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
        if action.epoch < self.epochs.get(action.workspace_id, 0):
            raise Refusal("stale_epoch")
        self.epochs[action.workspace_id] = action.epoch
        if self._is_so_already(action):
            return None
        self._check(action)
        self._bring_contents(action)
        made = super()._do(action)
        if made is not None:
            self.truth.store[made.manifest_key] = self.contents.get(action.target, 0)
        return made

    def _is_so_already(self, action: Action) -> bool:
        here = self.pods.get(action.target)
        match action.step:
            case StartPod():
                return here is not None and here.state is Observed.RUNNING
            case StopPod():
                return here is not None and here.state is Observed.STOPPED
        return False

    def _check(self, action: Action) -> None:
        """Look live at what the step goes by; raises Refusal."""
        here = self.pods.get(action.target)
        match action.step:
            case StartPod() | StopPod() | ArchivePod() if here is None:
                raise Refusal("source_changed")
            case ArchivePod() if here and here.state is not Observed.STOPPED:
                raise Refusal("source_changed")
            case RemovePod() if here:
                self._check_removal(action, action.step)
            case RemoveWorkspace():
                if any(pod.workspace_id == action.workspace_id for pod in self.pods.values()):
                    raise Refusal("source_changed")

    def _bring_contents(self, action: Action) -> None:
        match action.step:
            case RestoreWorkspace():
                assert action.step.archive.manifest_key in self.truth.store
            case CreatePod() if action.target not in self.pods:
                assert action.target not in self.truth.written, f"a pod with files is made anew: {action}"
                self.contents[action.target] = 0
            case RestorePod() if action.target not in self.pods:
                self.contents[action.target] = self.truth.store[action.step.archive.manifest_key]

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
