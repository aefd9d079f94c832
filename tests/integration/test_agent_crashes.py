"""LAW 10 on the real engine: cut at any effect, the agent comes to the same end after a restart."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from node_agent.executor import Executor
from node_agent.removal import sweep_all
from state import wire
from tests.support.docker_node import ONE, DockerNode, proof_of, source_of

IMAGE = "debian:bookworm-slim"
EFFECTS = {
    "runtime": {"create", "rename", "remove", "create_volume", "remove_volume", "ensure_network"},
    "host": {"mark", "own_top", "session_dir", "drop_session"},
    "archives": {"save_pod", "save_workspace", "restore", "place_lab"},
    "journal": {"see"},
}
Steps = list[tuple[wire.PodStep | wire.WorkspaceStep, str | None, int]]


class Killed(BaseException):
    """The process ends here: nothing after this point runs, no handler either."""


class Countdown:
    """Kills at one effect, before or after it has happened."""

    def __init__(self, at_effect: int, *, after: bool) -> None:
        self.left = at_effect
        self.after = after
        self.reached = False

    def run(self, effect: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """One effect."""
        self.left -= 1
        if self.left == 0 and not self.after:
            self.reached = True
            raise Killed
        result = effect(*args, **more)
        if self.left == 0:
            self.reached = True
            raise Killed
        return result


class Mortal:
    """A port whose effects are counted down; everything else passes through."""

    def __init__(self, port: Any, effects: set[str], countdown: Countdown) -> None:
        self._port, self._effects, self._countdown = port, effects, countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name == "attended":
            return lambda check: Mortal(found(check), self._effects, self._countdown)
        return partial(self._countdown.run, found) if name in self._effects else found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own."""
    node = DockerNode(tmp_path)
    node.publish_lab("hello", {"readme.md": "welcome"})
    yield node
    node.clean_up()


def run_with_a_crash(node: DockerNode, action: wire.Action, at_effect: int, *, after: bool) -> bool:
    """Execute, dying at the given effect, then restart and execute again. False when it never got there."""
    countdown = Countdown(at_effect, after=after)
    ports = {name: Mortal(getattr(node.parts, name), names, countdown) for name, names in EFFECTS.items()}
    try:
        result = Executor(replace(node.parts, **ports)).execute(action)
    except Killed:
        node.restart()
        sweep_all(node.parts)
        result = node.executor.execute(action)
    assert isinstance(result, wire.StepDone), result
    again = node.executor.execute(action)
    assert again == result
    return countdown.reached


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_every_action_survives_a_kill_at_each_of_its_effects(node: DockerNode, after: bool) -> None:
    """For each action of a pod's life and each effect of it: killed there, restarted, the end is the same."""
    at_effect, epoch = 0, 0
    reached = True
    while reached:
        at_effect += 1
        epoch += 2
        reached = _one_life(node, at_effect, epoch, after=after)
    assert at_effect > 4


def _one_life(node: DockerNode, at_effect: int, epoch: int, *, after: bool) -> bool:
    """Create, fill, save, remove, restore at the next epoch, compare, and remove again."""
    spec = wire.PodSpec(name="ide", image=IMAGE, lab="hello")
    crash = partial(run_with_a_crash, node, at_effect=at_effect, after=after)
    reached = crash(node.action(wire.CreateWorkspace(), epoch=epoch))
    reached |= crash(node.action(wire.CreatePod(spec=spec), ONE, epoch=epoch))
    upper = node.container(ONE, epoch).upper_dir
    assert upper is not None
    (Path(upper) / "made-in-the-pod").write_text("mine")
    (node.files(epoch) / "notes").write_text("mine too")

    saving = (
        node.action(wire.ArchivePod(number=1), ONE, epoch=epoch),
        node.action(wire.ArchiveWorkspace(number=1), epoch=epoch),
    )
    for action in saving:
        reached |= crash(action)
    pod, workspace = (_archive(node, action) for action in saving)
    reached |= crash(node.action(wire.RemovePod(proof=proof_of(pod)), ONE, epoch=epoch))
    reached |= crash(node.action(wire.RemoveWorkspace(proof=proof_of(workspace)), epoch=epoch))
    assert node.parts.runtime.look().containers == ()
    assert node.parts.runtime.look().volumes == ()

    back = epoch + 1
    reached |= crash(node.action(wire.RestoreWorkspace(archive=source_of(workspace)), epoch=back))
    reached |= crash(node.action(wire.RestorePod(spec=spec, archive=source_of(pod)), ONE, epoch=back))
    assert len(node.parts.runtime.look().containers) == 1
    restored = node.container(ONE, back).upper_dir
    assert restored is not None
    assert (Path(restored) / "made-in-the-pod").read_text() == "mine"
    assert (node.files(back) / "notes").read_text() == "mine too"
    assert (node.files(back) / "hello" / "readme.md").read_text() == "welcome"
    node.done(wire.RemovePod(proof=proof_of(node.saved(ONE, epoch=back))), ONE, epoch=back)
    node.done(wire.RemoveWorkspace(proof=proof_of(node.saved(epoch=back))), epoch=back)
    return reached


def _archive(node: DockerNode, action: wire.Action) -> Any:
    result = node.executor.execute(action)
    assert isinstance(result, wire.StepDone)
    return result.archive
