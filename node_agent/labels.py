"""Labels are the agent's memory: what is written on containers and volumes, and how it is read back. Pure.

Names are for people and for uniqueness; identity is in the labels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NODE = "codepods.node"
POD = "codepods.pod"
USER = "codepods.user"
WORKSPACE = "codepods.workspace"
EPOCH = "codepods.epoch"
GENERATION = "codepods.generation"
NAME = "codepods.name"
IMAGE = "codepods.image"

_PARTIAL = "-partial-"


@dataclass(frozen=True, slots=True)
class PodLabels:
    """What a pod's container says about itself. `image` is the reference that was asked for."""

    pod: str
    user: str
    workspace: str
    node: str
    epoch: int
    generation: int
    name: str = ""
    image: str = ""

    def as_labels(self) -> dict[str, str]:
        """For the engine."""
        return {
            POD: self.pod,
            USER: self.user,
            WORKSPACE: self.workspace,
            NODE: self.node,
            EPOCH: str(self.epoch),
            GENERATION: str(self.generation),
            NAME: self.name,
            IMAGE: self.image,
        }


@dataclass(frozen=True, slots=True)
class VolumeLabels:
    """What a workspace's volume says about itself."""

    user: str
    workspace: str
    node: str
    epoch: int

    def as_labels(self) -> dict[str, str]:
        """For the engine."""
        return {USER: self.user, WORKSPACE: self.workspace, NODE: self.node, EPOCH: str(self.epoch)}


class Unreadable(ValueError):
    """Labels that do not make a pod or a volume; the message says which and why."""


def read_pod(labels: Mapping[str, str]) -> PodLabels:
    """Raises Unreadable."""
    return PodLabels(
        pod=_word(labels, POD),
        user=_word(labels, USER),
        workspace=_word(labels, WORKSPACE),
        node=_word(labels, NODE),
        epoch=_count(labels, EPOCH),
        generation=_count(labels, GENERATION),
        name=labels.get(NAME, ""),
        image=labels.get(IMAGE, ""),
    )


def read_volume(labels: Mapping[str, str]) -> VolumeLabels:
    """Raises Unreadable."""
    return VolumeLabels(
        user=_word(labels, USER),
        workspace=_word(labels, WORKSPACE),
        node=_word(labels, NODE),
        epoch=_count(labels, EPOCH),
    )


def _word(labels: Mapping[str, str], key: str) -> str:
    value = labels.get(key, "")
    if not value:
        raise Unreadable(f"the label {key} is missing")
    return value


def _count(labels: Mapping[str, str], key: str) -> int:
    value = _word(labels, key)
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise Unreadable(f"the label {key} is {value[:40]!r}, not a number")
    return int(value)


def container_name(pod_id: str, epoch: int) -> str:
    """A whole container's name."""
    return f"codepods-{pod_id}-e{epoch}"


def partial_name(pod_id: str, epoch: int, attempt: int) -> str:
    """The name of a container that is still being restored into: never started, never reported."""
    return f"{container_name(pod_id, epoch)}{_PARTIAL}{attempt}"


def is_partial(name: str) -> bool:
    """The container was never finished, and so holds nothing that is not in the store."""
    return _PARTIAL in name


def volume_name(workspace_id: str, epoch: int) -> str:
    """A workspace volume's name."""
    return f"codepods-{workspace_id}-e{epoch}"


def highest_epochs(everything: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """The highest epoch that is written on anything of these, by workspace."""
    highest: dict[str, int] = {}
    for written in everything:
        try:
            read = read_volume(written)
        except Unreadable:
            continue
        highest[read.workspace] = max(read.epoch, highest.get(read.workspace, 0))
    return highest
